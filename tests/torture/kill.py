"""Kill -9 at random moments, the same command again until done: does it end with the very same bytes?

    cd tests && python -m torture.kill --times 200 [--tasks rotation,moco] [--workers 0,2] [--seed 0]

Commands are run by `selfsup.cli.main` in forked copies of this process, which has imported and compiled everything,
so that a kill costs a second and not ten. The moment is uniform over 1.5 times what the command takes when nobody
kills it. To meet many checkpoints they are written all the time; training from scratch on labels takes five steps; the
plan of `compare`, which comes from measured speed, is fixed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # a process with more threads cannot be copied
os.environ["CUDA_VISIBLE_DEVICES"] = ""

from selfsup.cli import main as selfsup_main
from selfsup.evaluation import few_labels, parts
from selfsup.tasks import TASKS
from selfsup.train import fit
from selfsup.train.checkpoint import load_tensors
from support.folders import write_images_and_a_broken_one
from support.steady import steady
from torture import PromiseBroken

few_labels.STEPS, parts.ENOUGH = (5, 5), 0  # from scratch in five steps, on one split
KNOWN = {
    "rotation": "",
    "moco": "--queue-size 32",
    "dino": "",
    "bigan": "",
    "deepcluster": "",
}
FILES = (
    "run/encoder.safetensors", "run/checkpoint/latest.safetensors", "run/skipped.jsonl", "run/evaluation.json",
    "embeddings.parquet", "compare/compare.json",
)  # fmt: skip


def commands(task: str, workers: int, compare: bool, epochs: int = 5) -> dict[str, str]:
    options = KNOWN.get(task, "")
    chosen = {
        "pretrain": f"pretrain images --task {task} {options} --encoder convnet --size 16 --epochs {epochs} "
        f"--batch-size 16 --out run --workers {workers} --seed 3 --quiet",
        "embed": "embed run images --labels folders -o embeddings.parquet --quiet",
        "evaluate": "evaluate run --data images --labels folders --shots 2 --draws 2 --protocol knn --no-scratch "
        "--quiet",
    }
    if compare:
        other = "" if task == "rotation" else ",rotation"
        chosen["compare"] = (
            f"compare images --labels folders --tasks {task}{other} --encoder convnet --minutes 0.01 "
            "--batch-size 16 --shots 2 --out compare --quiet"
        )
    return chosen


def warm_up(place: Path) -> None:
    """Run the commands once in this process, so that its copies need not import and compile."""
    before = os.getcwd()
    os.chdir(place)
    for words in commands("rotation", 0, False).values():
        with contextlib.redirect_stdout(io.StringIO()):
            selfsup_main(words.split())
    os.chdir(before)
    known = [thread for thread in threading.enumerate() if thread.name in ("MainThread", "watchdog")]
    threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    others = sum("jemalloc" not in name for name in threads) - len(known)
    if others:  # the helpers of `base.watchdog`, and pyarrow's allocator, know how to be copied
        raise PromiseBroken(f"a process with {others} unknown threads cannot be copied")


def start(words: str, place: Path, log: Path | None = None, limit: int | None = None, user: int = 0) -> int:
    """Run a command in a forked process group of its own, and return its process id.

    `log` gets what it says; `limit` bounds the bytes of a file that it writes; root may run it as another `user`.
    """
    child = os.fork()
    with contextlib.suppress(PermissionError, ProcessLookupError):
        os.setpgid(child, child)  # on both sides: the parent may kill the group before the child has run at all
    if child:
        return child
    try:
        os.chdir(place)
        said = os.open(log or "said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        if user:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
        fit.SAVE_SECONDS, fit.SAVE_SHARE = 0.0, 0.5
        steady(setattr, 0.02)
        sys.argv = ["selfsup", *words.split()]
        status = selfsup_main()
    except BaseException:
        traceback.print_exc()
        status = 99
    sys.stdout.flush()
    os._exit(status)


def wait(child: int, seconds: float) -> int | None:
    """Return the exit status, or None when the time is over."""
    end = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= end:
            return None
        time.sleep(min(0.001, max(0.0, end - time.monotonic())))


def whole(words: str, place: Path) -> float:
    """Run a command to its end, and return its seconds."""
    began = time.monotonic()
    status = wait(start(words, place), 600)
    if status != 0:
        raise PromiseBroken(f"{words}: ended with {status}: {(place / 'said.txt').read_text()}")
    return time.monotonic() - began


def check_half_way(place: Path) -> Counter[str]:
    """Check that what a kill left can be read, and return what it met half-way."""
    checkpoint = place / "run" / "checkpoint" / "latest.safetensors"
    if checkpoint.exists():
        load_tensors(checkpoint)
    for name in ("run/recipe.json", "run/evaluation.json", "compare/compare.json"):
        if (place / name).exists():
            json.loads((place / name).read_text())
    return Counter(path.name for path in place.rglob(".*.part"))


def check_end(place: Path, reference: Path) -> None:
    """Check that a life that was killed again and again ended as the one that was not."""
    for name in FILES:
        if (reference / name).exists() and (place / name).read_bytes() != (reference / name).read_bytes():
            raise PromiseBroken(f"{place / name} differs from that of the run that was never stopped")
    steps = [json.loads(line)["step"] for line in (place / "run" / "metrics.jsonl").read_text().splitlines()]
    expected = [json.loads(line)["step"] for line in (reference / "run" / "metrics.jsonl").read_text().splitlines()]
    if steps != expected:
        raise PromiseBroken(f"{place}: metrics.jsonl has the steps {steps}")
    left = [str(path) for path in place.rglob(".*")]
    if left:
        raise PromiseBroken(f"left behind: {left}")


def live(task: str, workers: int, seconds: dict[str, float], place: Path, chance: random.Random) -> Counter[str]:
    """Run all commands of a life under kills, and count those."""
    counted: Counter[str] = Counter()
    for name, words in commands(task, workers, "compare" in seconds).items():
        while True:
            child = start(words, place)
            status = wait(child, chance.uniform(0, 1.5 * seconds[name]))
            if status is None:
                os.killpg(child, signal.SIGKILL)
                _, code = os.waitpid(child, 0)
                if os.waitstatus_to_exitcode(code) == -signal.SIGKILL:
                    counted[name] += 1
                    counted.update(f"during {part}" for part in check_half_way(place).elements())
                    continue
                status = os.waitstatus_to_exitcode(code)
            if status != 0:
                raise PromiseBroken(f"{words}: ended with {status}: {(place / 'said.txt').read_text()}")
            break
    return counted


def torture(times: int, tasks: Sequence[str], workers: Sequence[int], compare: bool, seed: int, root: Path) -> None:
    chance = random.Random(seed)
    write_images_and_a_broken_one(root / "images")
    warm_up(root)
    lives = [(task, count) for task in tasks for count in workers]
    seconds: dict[str, dict[str, float]] = {}
    total: Counter[str] = Counter()
    kills = rounds = 0
    while kills < times:
        task, count = lives[rounds % len(lives)]
        reference, place = root / task, root / "life"
        if not reference.exists():
            reference.mkdir()
            (reference / "images").symlink_to(root / "images")
            seconds[task] = {name: whole(words, reference) for name, words in commands(task, 0, compare).items()}
        place.mkdir()
        (place / "images").symlink_to(root / "images")
        counted = live(task, count, seconds[task], place, chance)
        check_end(place, reference)
        shutil.rmtree(place)
        total += counted
        kills = sum(number for name, number in total.items() if not name.startswith("during"))
        rounds += 1
        print(f"{kills} kills, {rounds} lives; {task}, {count} workers: {dict(counted)}", flush=True)
    print(f"{kills} kills in {rounds} lives, each ended with the bytes of the one never stopped: {dict(total)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=200, help="kills, at least")
    parser.add_argument("--tasks", default=",".join(task for task in KNOWN if task in TASKS))
    parser.add_argument("--workers", default="0,2")
    parser.add_argument("--no-compare", action="store_true", help="leave compare, the slowest command, out")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            torture(
                asked.times, asked.tasks.split(","), [int(count) for count in asked.workers.split(",")],
                not asked.no_compare, asked.seed, Path(folder),
            )  # fmt: skip
        except PromiseBroken as error:
            print(f"BROKEN: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
