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
import resource
import tempfile
from pathlib import Path

import numpy as np

import selfsup
from budget import add_options, run_all, runs_of, train, untrained_rows
from results import Record, cell, gain, grid, markdown, record
from selfsup.tasks import TASKS, find_task

SHOTS, DRAWS = ("1", "5", "20"), 5
GAINED = ("5", "20")  # what tells methods apart: one label per class varies most with the draw
READERS = ("linear", "propagate")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="mnist5k")
    parser.add_argument("--tasks", default="all", help="such as 'byol,dino momentum=0.9'")
    parser.add_argument("--size", type=int)
    add_options(parser, "methods.jsonl", 2.0)
    args = parser.parse_args()
    images = [name for name in TASKS if find_task(name).kind == "image" and not find_task(name).needs_labels]
    run_all(args, images if args.tasks == "all" else args.tasks.split(","), measure, table)


def measure(args: argparse.Namespace, name: str, seed: int, steps: int) -> Record:
    folders = Path(args.data).is_dir()
    data, test = (f"{args.data}/{part}" if folders else f"{args.data}:{part}" for part in ("train", "test"))
    labels, size = "folders" if folders else None, {"size": args.size} if args.size else {}
    with tempfile.TemporaryDirectory() as folder:
        run, seconds = train(args, data, name, seed, steps, folder, **size)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        evaluation = selfsup.evaluate(
            run, data=data, labels=labels, test=test, test_labels=labels, shots=",".join(SHOTS), draws=DRAWS,
            protocol=",".join(READERS), scratch=False, seed=0, quiet=True,
        )  # fmt: skip
        return record(run, evaluation, args.data, name, cpu_s=seconds, mb=round(memory))


def table(found: list[Record]) -> str:
    """Return the table as Markdown: the best method by propagated labels, five per class, first."""
    heads = [f"{reader}, {k}" for reader in READERS for k in SHOTS]
    blank = [""] * (len(READERS) * len(GAINED) + 2)  # baselines have neither gains nor costs
    lines: list[tuple[float, list[str]]] = []
    for name, mine in runs_of(found).items():
        last, task = mine[-1], mine[-1]["task"]
        own = any(key.startswith(f"untrained {task}") for key in last["scores"])
        untrained = f"untrained {task}" if own else "untrained"
        gains = [
            gain(grid(mine, task, reader, k) - grid(mine, untrained, reader, k)) for reader in READERS for k in GAINED
        ]
        cost = [f"{last['steps']:,}", f"{np.mean([row['cpu_s'] for row in mine]):.0f}"]
        lines.append(line(name, mine, task, gains + cost))
        lines += [line(f"untrained {name}", mine, untrained, blank)] * own
    lines += [line("untrained", mine, "untrained", blank) for mine in untrained_rows(found)]
    lines.append(line("raw pixels", [{**row, "encoder": ""} for row in found[:1]], "raw pixels", blank))
    head = ["", "encoder", *heads, *(f"minus untrained: {reader}, {k}" for reader in READERS for k in GAINED)]
    head += ["steps", "CPU s"]
    return markdown(head, [row for _, row in sorted(lines, reverse=True)])


def line(name: str, mine: list[Record], representation: str, rest: list[str]) -> tuple[float, list[str]]:
    cells = [grid(mine, representation, reader, k) for reader in READERS for k in SHOTS]
    row = [name, mine[0]["encoder"], *map(cell, cells), *rest]
    return float(grid(mine, representation, "propagate", "5").mean()), row


if __name__ == "__main__":
    main()
