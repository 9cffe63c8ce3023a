"""A disk that is full at any byte, folders that may not be written: one line, and what was whole stays whole.

    cd tests && python -m torture.disk --times 40 [--seed 0]

As root a small tmpfs is mounted, filled up to a random number of free bytes, and a command is run on it; elsewhere
the size of a file is limited (RLIMIT_FSIZE), which fails in the same place with another reason. Then the same command
runs with room, and has to end with the bytes of the run that never met a full disk.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from support.folders import write_images_and_a_broken_one
from torture import PromiseBroken
from torture.kill import check_end, check_half_way, commands, start, wait, warm_up, whole

ROOM = 64 << 20
NOBODY = 65534


def can_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, check=False)
        if mounted.returncode == 0:
            subprocess.run(["umount", folder], check=True)
        return mounted.returncode == 0


def said_one_line(place: Path, log: Path, allowed: tuple[int, ...], status: int | None) -> str:
    """Return what a command that failed said: one line of ours and no traceback."""
    text = log.read_text()
    ours = [line for line in text.splitlines() if line.startswith("selfsup:")]
    if status not in allowed or "Traceback" in text or len(ours) != 1:
        raise PromiseBroken(f"in {place} a command ended with {status} and said: {text}")
    return ours[0]


def full(times: int, chance: random.Random, root: Path) -> Counter[str]:
    """Run every command with a random number of free bytes, then with room."""
    mounts = can_mount()
    print("a full tmpfs" if mounts else "no right to mount: a limit on the size of files stands for a full disk")
    met: Counter[str] = Counter()
    reference, place, log = root / "reference", root / "place", root / "said.txt"
    words = commands("rotation", 0, compare=False, epochs=2)
    reference.mkdir()
    (reference / "images").symlink_to(root / "images")
    for each in words.values():
        whole(each, reference)
    needed = {"pretrain": 20 << 20, "embed": 1 << 18, "evaluate": 1 << 14}
    while met.total() < times:
        place.mkdir()
        if mounts:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", place], check=True)
        try:
            (place / "images").symlink_to(root / "images")
            for name, each in words.items():
                free = int(needed[name] * chance.random() ** 3)
                filler = place / "filler"
                if mounts:
                    with filler.open("wb") as file:
                        os.posix_fallocate(file.fileno(), 0, max(4096, shutil.disk_usage(place).free - free))
                status = wait(start(each, place, log, None if mounts else free), 300)
                check_half_way(place)
                if status != 0:
                    line = said_one_line(place, log, (1, 2), status)
                    if "space left" not in line and "too large" not in line:
                        raise PromiseBroken(f"{each}: {line}")
                    met[name] += 1
                filler.unlink(missing_ok=True)
                whole(each, place)
            check_end(place, reference)
        finally:
            if mounts:
                subprocess.run(["umount", place], check=True)
        shutil.rmtree(place)
        print(f"full {met.total()} times: {dict(met)}", flush=True)
    return met


def forbidden(root: Path) -> list[str]:
    """Run commands on a run folder that may only be read, as a user who may not write it, and return what they said."""
    place, log = root / "forbidden", root / "said.txt"
    place.mkdir()
    (place / "images").symlink_to(root / "images")
    words = commands("rotation", 0, compare=False, epochs=2)
    begun = words["pretrain"].replace("--out run", "--out begun")
    status = wait(start(begun + " --until 3", place), 300)
    whole(words["pretrain"], place)
    said = []
    for folder in (place, *place.rglob("*")):
        if not folder.is_symlink():
            folder.chmod(0o555 if folder.is_dir() else 0o444)
    for path in (root, root.parent):
        path.chmod(path.stat().st_mode | 0o055)
    log.touch()
    log.chmod(0o666)
    out = root / "out"
    out.mkdir()
    out.chmod(0o777)
    works = {
        "the finished run again": words["pretrain"],
        "embed elsewhere": words["embed"].replace("-o ", f"-o {out}/"),
        "evaluate": words["evaluate"],
    }
    fails = {
        "go on with a run": begun,
        "a new run": words["pretrain"].replace("--out run", "--out new"),
        "embed here": words["embed"],
    }
    for what, each in {**works, **fails}.items():
        status = wait(start(each, place, log, user=NOBODY), 300)
        if what in works and (status != 0 or "Traceback" in log.read_text()):
            raise PromiseBroken(f"{what}, of a run that may only be read: {status}: {log.read_text()}")
        if what in fails:
            said.append(f"{what}: {said_one_line(place, log, (1, 2), status)}")
    return said


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=40, help="failures for lack of room, at least")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        try:
            write_images_and_a_broken_one(root / "images")
            warm_up(root)
            if os.getuid() == 0:
                print(*forbidden(root), sep="\n")
            else:
                print("not root: permissions are not tested")
            met = full(asked.times, random.Random(asked.seed), root)
        except PromiseBroken as error:
            print(f"BROKEN: {error}", file=sys.stderr)
            return 1
    print(f"{met.total()} times a full disk, each one line, each went on to the same bytes: {dict(met)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
