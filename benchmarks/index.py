"""A million image files in nested folders: how long it takes to list them, the first time and later.

    python benchmarks/index.py --root /tmp/million [--count 1000000] [--peers]

The files are hard links to a few real JPEGs (100 classes, folders of 100 files), made unless they exist; a file can
have at most 65,000 links, hence a few. In interleaved rounds, each measurement in a process of its own: a walk that
stats every file (os.walk and os.stat), the first start without an index, a start with one, and with --peers
torchvision's ImageFolder and lightly's LightlyDataset. The median of each is printed, also as JSON. Then files are
added, removed and renamed, and each change has to be noticed.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

CASES = {
    "walk with stats": """
import os
found = sum(1 for folder, _, names in os.walk(root) for name in names if os.stat(os.path.join(folder, name)))
""",
    "first start": """
from selfsup.data.open import open_data
begin()
data = open_data(root)
found = len(data)
""",
    "later start": """
from selfsup.data.open import open_data
begin()
data = open_data(root)
found = len(data)
""",
    "fingerprint": """
from selfsup.data.open import open_data
source = open_data(root)
begin()
source.fingerprint()
found = len(source)
""",
    "torchvision ImageFolder": """
from torchvision.datasets import ImageFolder
begin()
data = ImageFolder(root)
found = len(data)
""",
    "lightly LightlyDataset": """
from lightly.data import LightlyDataset
begin()
data = LightlyDataset(root)
found = len(data)
""",
}
FRAME = """
import json, sys, time
def resident():
    lines = open("/proc/self/status").read().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssFile", "RssShmem"))) / 1e3
def begin():
    global wall, cpu, memory
    wall, cpu, memory = time.perf_counter(), time.process_time(), resident()
root = sys.argv[1]
begin()
{case}
print(json.dumps({{"files": found, "seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu,
                  "MB": resident() - memory}}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", action="store_true")
    options = parser.parse_args()
    make(options.root, options.count)
    cases = {name: case for name, case in CASES.items() if options.peers or not name.startswith(("torchv", "lightly"))}
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in cases}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as cache:
            for name, case in cases.items():
                measured[name].append(run(case, options.root, cache))
                print(name, measured[name][-1], file=sys.stderr)
    with tempfile.TemporaryDirectory() as cache:
        run(CASES["first start"], options.root, cache)
        changes = {name: change(options.root, name, cache) for name in ("added", "removed", "renamed")}
    walks = measured["walk with stats"]
    for name, runs in measured.items():
        middle = {key: statistics.median(one[key] for one in runs) for key in runs[0]}
        ratio = statistics.median(a["seconds"] / b["seconds"] for a, b in zip(runs, walks, strict=True))
        print(
            f"{name:26}{middle['seconds']:8.2f} s {middle['cpu']:8.2f} s CPU {middle['MB']:7.0f} MB {ratio:7.2f} × walk"
        )
    print(", ".join(f"{name}: {'seen' if seen else 'NOT SEEN'}" for name, seen in changes.items()))
    print(json.dumps({"measured": measured, "changes": changes}))


def run(case: str, root: Path, cache: str) -> dict[str, float]:
    """Run one case in a process of its own."""
    command = [sys.executable, "-c", FRAME.format(case=case), str(root)]
    done = subprocess.run(command, env=os.environ | {"SELFSUP_CACHE": cache}, stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def change(root: Path, name: str, cache: str) -> bool:
    """Change one file, start again, and undo the change; return whether the right paths were found."""
    new = root / "class50" / "part00" / "changed.jpg"
    new.unlink(missing_ok=True)  # left by an interrupted run
    old = next(root.glob("class50/part00/*.jpg"))
    listing = f"""
from selfsup.data.open import open_data
source = open_data(root)
paths, names = set(source.paths.to_pylist()), ({old.name.encode()}, b"changed.jpg")
found = [len(source), *(b"class50/part00/" + name in paths for name in names)]
"""
    count = run(CASES["later start"], root, cache)["files"]
    if name == "added":
        os.link(old, new)
    else:
        old.rename(new if name == "renamed" else root.parent / "removed.jpg")
    found = run(listing, root, cache)["files"]
    if name == "added":
        new.unlink()
    else:
        (new if name == "renamed" else root.parent / "removed.jpg").rename(old)
    expected = {"added": [count + 1, True, True], "removed": [count - 1, False, False], "renamed": [count, False, True]}
    return found == expected[name]


def make(root: Path, count: int) -> None:
    """Make the files, unless the folder exists."""
    if root.exists():
        return
    generator = np.random.default_rng(0)
    for number in range(count):
        if number % 60_000 == 0:
            file = io.BytesIO()
            pixels = Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            pixels.resize((48, 48)).save(file, "JPEG")
        folder = root / f"class{number // 100 % 100:02}" / f"part{number // 10_000:02}"
        if number % 100 == 0:
            folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"image-{number:07}.jpg"
        if number % 60_000 == 0:
            path.write_bytes(file.getvalue())
            first = path
        else:
            os.link(first, path)


if __name__ == "__main__":
    main()
