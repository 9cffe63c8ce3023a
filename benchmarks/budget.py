"""Methods with the same budget of CPU time: each run in a process of one thread, of as many steps as fit."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import selfsup
from results import Record, grouped, parsed, read, write
from selfsup.tasks import find_task

Measure = Callable[[argparse.Namespace, str, int, int], Record]


def add_options(parser: argparse.ArgumentParser, out: str, minutes: float) -> None:
    parser.add_argument("--cpu-minutes", type=float, default=minutes)
    parser.add_argument("--encoder", help="by default convnet, or the small one that the method needs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(out), help="JSON lines; what is there is not measured again")
    parser.add_argument("--table", type=Path, help="print the table of such a file instead")
    parser.add_argument("--one", nargs=3, metavar=("METHOD", "SEED", "STEPS"), help=argparse.SUPPRESS)


def run_all(
    args: argparse.Namespace, methods: list[str], measure: Measure, table: Callable[[list[Record]], str]
) -> None:
    """Measure each method over the seeds, and print the table; a process that this starts measures its one run."""
    if args.one:
        name, seed, steps = args.one
        write(args.out, measure(args, name, int(seed), int(steps)))
        return
    for name in [] if args.table else methods:
        for seed in range(args.seeds):
            done = {row["seed"]: row["steps"] for row in read(args.out) if row["name"] == name}
            if seed not in done:
                steps = str(next(iter(done.values()), 0))  # those of the first seed
                words = [sys.executable, *sys.argv, "--one", name, str(seed), steps]
                subprocess.run(words, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"})
    print(table(read(args.table or args.out)))


def train(
    args: argparse.Namespace, data: str, name: str, seed: int, steps: int, folder: str, **options: Any
) -> tuple[selfsup.Run, float]:
    """Return the run of a method (`task option=value …`) and its CPU seconds; without `steps` of as many as fit."""
    task, *words = name.split()

    def trained(out: str, steps: int) -> tuple[selfsup.Run, float]:
        before = time.process_time()
        run = selfsup.pretrain(
            data, task=task, encoder=args.encoder or find_task(task).small_encoder, seed=seed, steps=steps,
            out=f"{folder}/{out}", workers=0, quiet=True, **{"device": "cpu", **options, **parsed(words)},
        )  # fmt: skip
        return run, round(time.process_time() - before, 1)

    if not steps:
        trained("first", 3)  # compiles
        few, more = trained("few", 3)[1], trained("more", 13)[1]
        steps = max(10, int(args.cpu_minutes * 60 / max((more - few) / 10, 1e-3)))
    return trained("run", steps)


def untrained_rows(found: list[Record]) -> list[list[Record]]:
    """Return the records that have each encoder untrained: one for each seed, whatever the method."""
    return [list({row["seed"]: row for row in mine}.values()) for mine in grouped(found, "encoder")]


def runs_of(found: list[Record]) -> dict[str, list[Record]]:
    """Return the records by what the method is called, with the number of seeds where it is not three."""
    groups = grouped(found, "name")
    return {f"`{mine[0]['name']}`" + f" (seeds: {len(mine)})" * (len(mine) != 3): mine for mine in groups}
