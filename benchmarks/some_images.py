"""Part of a large data set in class folders, for measurements that take minutes: so many images of each class.

    python benchmarks/some_images.py cifar10/ c5k/ --train 400 --test 200      # as in docs/results.md

They are drawn at random, always the same ones, and copied.
"""

from __future__ import annotations

import argparse
import random
import shutil
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="a folder with train/CLASS/ and test/CLASS/")
    parser.add_argument("out", type=Path)
    parser.add_argument("--train", type=int, default=400, help="images of each class")
    parser.add_argument("--test", type=int, default=200)
    args = parser.parse_args()
    drawn = random.Random(0)
    for part, count in (("train", args.train), ("test", args.test)):
        for folder in sorted((args.data / part).iterdir()):
            (args.out / part / folder.name).mkdir(parents=True)
            for name in drawn.sample(sorted(path.name for path in folder.iterdir()), count):
                shutil.copy(folder / name, args.out / part / folder.name / name)


if __name__ == "__main__":
    main()
