"""Segmentation with few labelled images of `cutouts`: methods with the same budget of CPU time, over seeds.

    python benchmarks/dense.py --cpu-minutes 10 --out dense.jsonl    # simclr, denseclr, dinov2 with and without Gram
    python benchmarks/dense.py --tasks "denseclr dense_weight=1,mae" --encoder vit --out dense.jsonl
    python benchmarks/dense.py --table dense.jsonl > table.md
    python benchmarks/dense.py --quick                               # a smoke test, under a minute

Each method learns from the images of `cutouts:train` without their masks; mIoU is that of 200 images of `cutouts:test`,
none of whose emoji it saw, from 1, 2, 5 and 10 labelled images by the linear probe and by neighbours, five draws.
Intervals are over seeds and draws (`draws.crossed`). Each run is a process of one thread; the number of steps
follows from the CPU time of a few, measured once for all seeds of a method. A row that is already in --out is not
measured again.
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

import numpy as np

import selfsup
from budget import add_options, run_all, runs_of, train, untrained_rows
from results import Record, cell, gain, grid, markdown, record
from selfsup.evaluation import mask_parts

TASKS = "simclr,denseclr,dinov2,dinov2 gram_weight=2"
READERS = ("linear", "knn")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", default=TASKS, help="such as 'simclr,denseclr grid=4'")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--shots", default="1,2,5,10")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="one method, two steps, 20 images: does it run?")
    add_options(parser, "dense.jsonl", 10.0)
    args = parser.parse_args()
    if args.quick:
        mask_parts.MOST, args.shots, args.draws = 20, "1,2", 2
        print(table([measure(args, "denseclr", 0, 2)]))
    else:
        run_all(args, args.tasks.split(","), measure, table)


def measure(args: argparse.Namespace, name: str, seed: int, steps: int) -> Record:
    with tempfile.TemporaryDirectory() as folder:
        run, seconds = train(args, "cutouts:train", name, seed, steps, folder, size=args.size, device=args.device)
        found: Any = selfsup.evaluate(
            run, data="cutouts:train", test="cutouts:test", target="masks", shots=args.shots, draws=args.draws,
            protocol=",".join(READERS), seed=0, device=args.device, quiet=True,
        )  # fmt: skip
        chance = found.about["chance"]["value"]
        return record(run, found, "cutouts", name, cpu_s=seconds, chance=chance)


def table(found: list[Record]) -> str:
    """Return the table as Markdown: mIoU in percent, and paired gains over the untrained encoder and raw colours."""
    shots, colours = list(next(iter(found[0]["scores"].values()))), ("raw colours", "raw colours + place")
    others = ("untrained", "raw colours")
    rows = []
    for name, mine in runs_of(found).items():
        few = grid(mine, mine[0]["task"], "linear", shots[-1])
        gains = [gain(few - grid(mine, other, "linear", shots[-1])) for other in others]
        cost = [f"{mine[0]['steps']:,}", f"{np.mean([row['cpu_s'] for row in mine]):.0f}"]
        rows.append(line(name, mine, mine[0]["task"], shots, gains + cost))
    for mine in untrained_rows(found):
        rows.append(line("untrained", mine, "untrained", shots, [""] * 4))
        rows += [line(name, mine[:1], name, shots, [""] * 4) for name in colours]  # in patches of that encoder's size
    rows.append(["the most common class", "", f"{100 * found[0]['chance']:.1f}", *[""] * (2 * len(shots) + 3)])
    heads = [f"{reader}, {k}" for reader in READERS for k in shots]
    gains = [f"minus {name}: linear, {shots[-1]}" for name in others]
    return markdown(["mIoU, %", "encoder", *heads, *gains, "steps", "CPU s"], rows)


def line(name: str, mine: list[Record], representation: str, shots: list[str], rest: list[str]) -> list[str]:
    cells = [cell(grid(mine, representation, reader, k)) for reader in READERS for k in shots]
    return [name, mine[0]["encoder"], *cells, *rest]


if __name__ == "__main__":
    main()
