"""The cost of an image in `pretrain` and `embed`, and the memory, from 10^3 to 10^6 items.

    python benchmarks/embedding.py --root /tmp/items [--counts 1000,10000,100000,1000000] [--steps 200] [--rounds 3]

The items are hard links under new names to 1,000 generated JPEGs (64 × 64), made unless they exist. Each measurement is
in a process of its own, in interleaved rounds, and the median is printed, also as JSON: microseconds an image while
training (rotation, nature-cnn, batches of 128, without the first 20 steps), microseconds an image of `embed` (at
most 20,000 rows: a shard of so many), and the peak of resident memory of each. The first start, which lists the files,
is not in them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

REAL = 1000  # files; one can have at most 65,000 links
CASES = {
    "pretrain": """
import time, selfsup
stamps = []
selfsup.pretrain(root, encoder="nature-cnn", size=64, batch_size=128, steps=steps, out=out, quiet=True, log="none",
                 recalibrate=False, on_log=lambda line: stamps.append((line["step"], time.perf_counter())))
(first, began), (last, ended) = next(one for one in stamps if one[0] >= 20), stamps[-1]
cost = (ended - began) / ((last - first) * 128)
""",
    "embed": """
import math, time, selfsup
from selfsup.evaluation.features import BATCH
seen = []
from selfsup.evaluation import embedding
batches = embedding.feature_batches
def timed(*arguments, **options):
    for batch in batches(*arguments, **options):
        seen.append((len(batch[0]), time.perf_counter()))
        yield batch
embedding.feature_batches = timed
selfsup.embed(run, root, shard=f"0/{max(1, count // 20_000)}", out=out, quiet=True)
cost = (seen[-1][1] - seen[0][1]) / sum(rows for rows, _ in seen[1:])
""",
}


def make(root: Path, count: int) -> Path:
    """Make a folder with so many items in folders of 1,000, and return it."""
    real, folder = root / "real", root / str(count)
    if not real.exists():
        real.mkdir(parents=True)
        generator = np.random.default_rng(0)
        for number in range(REAL):
            small = Image.fromarray(generator.integers(0, 255, (8, 8, 3), dtype=np.uint8))
            small.resize((64, 64), Image.Resampling.BICUBIC).save(real / f"{number}.jpg", quality=90)
    for number in range(0 if folder.exists() else count):
        place = folder / f"{number // REAL:05d}"
        if number % REAL == 0:
            place.mkdir(parents=True)
        os.link(real / f"{number % REAL}.jpg", place / f"{number}.jpg")
    return folder


def measure(case: str, **values: object) -> dict[str, float]:
    """Return microseconds an image and MB at most, from a process of its own."""
    code = "\n".join(f"{name} = {value!r}" for name, value in values.items()) + CASES[case]
    code += "import json, resource\npeak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3\n"
    code += "print(json.dumps([cost * 1e6, peak]))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    cost, peak = json.loads(said.splitlines()[-1])
    return {"µs": cost, "MB": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--counts", default="1000,10000,100000,1000000")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    counts = [int(count) for count in asked.counts.split(",")]
    folders = {count: str(make(asked.root, count)) for count in counts}
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as place:
        for round_ in range(asked.rounds + 1):  # the first one lists files and compiles
            for count in counts:
                for case in CASES:
                    one = measure(
                        case, root=folders[count], count=count, steps=asked.steps,
                        out=f"{place}/{case}-{count}-{round_}", run=f"{place}/pretrain-{count}-{round_}",
                    )  # fmt: skip
                    if round_:
                        found.setdefault(f"{case} {count}", []).append(one)
    told = {name: {key: statistics.median(one[key] for one in all_) for key in all_[0]} for name, all_ in found.items()}
    for case in CASES:
        first = told[f"{case} {counts[0]}"]["µs"]
        for count in counts:
            one = told[f"{case} {count}"]
            cost = f"{one['µs']:8.1f} µs an image ({one['µs'] / first:.2f})"
            print(f"{case:9} {count:>9,} items: {cost}, {one['MB']:7.0f} MB")
    print(json.dumps(told))


if __name__ == "__main__":
    main()
