"""Every method with the same budget of CPU time, over seeds of pretraining: few labels, read as in docs/evaluation.md.

    python benchmarks/methods.py --data mnist5k --cpu-minutes 2 --out mnist5k.jsonl
    python benchmarks/methods.py --data emoji --size 64 --tasks "simclr min_scale=0.5,byol" --out emoji.jsonl
    python benchmarks/methods.py --table mnist5k.jsonl > table.md

Each method learns from `DATA:train` without labels (or from the folder DATA/train) and is read with 1, 5 and 20 labels
per class by the linear probe and by propagation, five draws, on `DATA:test`. Every seed of pretraining has an untrained
encoder of its own; intervals are over seeds and draws (`draws.crossed`). Each run is a process of one thread; the
number of steps follows from the CPU time of a few, measured once for all seeds of a method. A row that is already in
--out is not measured again.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import selfsup
from results import Record, cell, gain, grid, markdown, parsed, read, record, write
from selfsup.tasks import TASKS, find_task

SHOTS, DRAWS = ("1", "5", "20"), 5
READERS = ("linear", "propagate")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="mnist5k")
    parser.add_argument("--tasks", default="all", help="such as 'byol,dino momentum=0.9'")
    parser.add_argument("--cpu-minutes", type=float, default=2.0)
    parser.add_argument("--encoder", help="by default convnet, or the small one that the method needs")
    parser.add_argument("--size", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("methods.jsonl"))
    parser.add_argument("--table", type=Path, help="print the table of such a file instead")
    parser.add_argument("--one", nargs=3, metavar=("METHOD", "SEED", "STEPS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.table:
        print(table(read(args.table)))
    elif args.one:
        write(args.out, measure(args, *args.one))
    else:
        run_all(args)


def run_all(args: argparse.Namespace) -> None:
    images = [name for name in TASKS if find_task(name).kind == "image" and not find_task(name).needs_labels]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for name in images if args.tasks == "all" else args.tasks.split(","):
        for seed in range(args.seeds):
            done = {row["seed"]: row["steps"] for row in read(args.out) if row["name"] == name}
            if seed not in done:
                steps = str(next(iter(done.values()), 0))  # those of the first seed
                words = [sys.executable, *sys.argv, "--one", name, str(seed), steps]
                subprocess.run(words, check=False, env=environment)
    print(table(read(args.out)))


def measure(args: argparse.Namespace, name: str, seed: str, steps: str) -> Record:
    """Return one row; without `steps` as many as fit the time."""
    task, *words = name.split()
    options = parsed(words)
    options |= {"size": args.size} if args.size else {}
    parts = [f"{args.data}/{part}" if Path(args.data).is_dir() else f"{args.data}:{part}" for part in ("train", "test")]
    labels = "folders" if Path(args.data).is_dir() else None

    def train(out: str, steps: int) -> tuple[selfsup.Run, float]:
        before = time.process_time()
        run = selfsup.pretrain(
            parts[0], task=task, encoder=args.encoder or find_task(task).small_encoder, seed=int(seed), out=out,
            steps=steps, device="cpu", workers=0, quiet=True, **options,
        )  # fmt: skip
        return run, time.process_time() - before

    with tempfile.TemporaryDirectory() as folder:
        count = int(steps)
        if not count:
            train(f"{folder}/first", 3)  # compiles
            few, more = train(f"{folder}/few", 3)[1], train(f"{folder}/more", 13)[1]
            count = max(10, int(args.cpu_minutes * 60 / max((more - few) / 10, 1e-3)))
        run, seconds = train(f"{folder}/run", count)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        evaluation = selfsup.evaluate(
            run, data=parts[0], labels=labels, test=parts[1], test_labels=labels, shots=",".join(SHOTS), draws=DRAWS,
            protocol=",".join(READERS), scratch=False, seed=0, quiet=True,
        )  # fmt: skip
        return record(run, evaluation, args.data, name, cpu_s=round(seconds, 1), mb=round(memory))


def table(found: list[Record]) -> str:
    """Return the table as Markdown: the best method by propagated labels, five per class, first."""
    heads = [f"{reader}, {k}" for reader in READERS for k in SHOTS]
    lines: list[tuple[float, list[str]]] = []
    for name in dict.fromkeys(row["name"] for row in found):
        mine = [row for row in found if row["name"] == name]
        last, task = mine[-1], mine[-1]["task"]
        own = [key for key in last["scores"] if key.startswith(f"untrained {task}")]
        untrained = f"untrained {task}" if own else "untrained"
        gains = [gain(grid(mine, task, reader, "5") - grid(mine, untrained, reader, "5")) for reader in READERS]
        seeds = "" if len(mine) == 3 else f" (seeds: {len(mine)})"
        cost = [f"{last['steps']:,}", f"{np.mean([row['cpu_s'] for row in mine]):.0f}"]
        lines.append(line(f"`{name}`{seeds}", mine, task, gains + cost))
    for encoder in dict.fromkeys(row["encoder"] for row in found):  # one for each seed, whatever the method
        mine = list({row["seed"]: row for row in found if row["encoder"] == encoder}.values())
        lines.append(line("untrained", mine, "untrained", [""] * 4))
    lines.append(line("raw pixels", [{**row, "encoder": ""} for row in found[:1]], "raw pixels", [""] * 4))
    head = ["", "encoder", *heads, *(f"minus untrained: {reader}, 5" for reader in READERS), "steps", "CPU s"]
    return markdown(head, [row for _, row in sorted(lines, reverse=True)])


def line(name: str, mine: list[Record], representation: str, rest: list[str]) -> tuple[float, list[str]]:
    cells = [grid(mine, representation, reader, k) for reader in READERS for k in SHOTS]
    row = [name, mine[0]["encoder"], *map(cell, cells), *rest]
    return float(grid(mine, representation, "propagate", "5").mean()), row


if __name__ == "__main__":
    main()
