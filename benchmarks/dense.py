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
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import selfsup
from methods import grid, rows
from results import cell, parsed
from selfsup.evaluation import mask_parts
from selfsup.tasks import find_task

TASKS = "simclr,denseclr,dinov2,dinov2 gram_weight=2"
READERS = ("linear", "knn")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", default=TASKS, help="such as 'simclr,denseclr grid=4'")
    parser.add_argument("--cpu-minutes", type=float, default=10.0)
    parser.add_argument("--encoder", help="by default convnet, or the small one that the method needs")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shots", default="1,2,5,10")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("dense.jsonl"))
    parser.add_argument("--table", type=Path, help="print the table of such a file instead")
    parser.add_argument("--quick", action="store_true", help="one method, two steps, 20 images: does it run?")
    parser.add_argument("--one", nargs=3, metavar=("METHOD", "SEED", "STEPS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.quick:
        mask_parts.MOST, args.shots, args.draws = 20, "1,2", 2
        table([measure(args, "denseclr", 0, 2)])
    elif args.table:
        table(rows(args.table))
    elif args.one:
        with args.out.open("a") as file:
            file.write(json.dumps(measure(args, args.one[0], *map(int, args.one[1:]))) + "\n")
    else:
        for name in args.tasks.split(","):
            for seed in range(args.seeds):
                done = {row["seed"]: row["steps"] for row in rows(args.out) if row["name"] == name}
                if seed not in done:
                    steps = str(next(iter(done.values()), 0))  # those of the first seed
                    words = [sys.executable, *sys.argv, "--one", name, str(seed), steps]
                    subprocess.run(words, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"})
        table(rows(args.out))


def measure(args: argparse.Namespace, name: str, seed: int, steps: int) -> dict[str, Any]:
    """Return one row; without `steps` as many as fit the time."""
    task, *words = name.split()
    options = parsed(words)

    def train(out: str, count: int) -> tuple[selfsup.Run, float]:
        before = time.process_time()
        run = selfsup.pretrain(
            "cutouts:train", task=task, encoder=args.encoder or find_task(task).small_encoder, size=args.size,
            steps=count, seed=seed, out=out, device=args.device, workers=0, quiet=True, **options,
        )  # fmt: skip
        return run, time.process_time() - before

    with tempfile.TemporaryDirectory() as folder:
        if not steps:
            train(f"{folder}/first", 3)  # compiles
            few, more = train(f"{folder}/few", 3)[1], train(f"{folder}/more", 13)[1]
            steps = max(10, int(args.cpu_minutes * 60 / max((more - few) / 10, 1e-3)))
        run, seconds = train(f"{folder}/run", steps)
        found: Any = selfsup.evaluate(
            run, data="cutouts:train", test="cutouts:test", target="masks", shots=args.shots, draws=args.draws,
            protocol=",".join(READERS), seed=0, device=args.device, quiet=True,
        )  # fmt: skip
        batch = run.recipe["plan"]["batch_size"]
    scores: dict[str, dict[str, Any]] = {}
    for score in found.scores:
        scores.setdefault(f"{score.representation}, {score.protocol}", {})[str(score.shots)] = list(score.values)
    about = {"task": task, "encoder": run.encoder_name, "size": args.size, "steps": steps, "batch": batch, "seed": seed}
    return {"name": name, **about, "cpu_s": seconds, "chance": found.about["chance"]["value"], "scores": scores}


def table(found: list[dict[str, Any]]) -> None:
    """Print the table as Markdown: mIoU in percent, and paired gains over the untrained encoder and raw colours."""
    shots = list(next(iter(found[0]["scores"].values())))
    heads = [f"{reader}, {k}" for reader in READERS for k in shots]
    heads += [f"minus {name}, linear, {shots[-1]}" for name in ("untrained", "raw colours")]
    print("| | encoder | " + " | ".join([*heads, "steps", "CPU s"]) + " |")
    print("|---" * (len(heads) + 4) + "|")
    for name in dict.fromkeys(row["name"] for row in found):
        mine = [row for row in found if row["name"] == name]
        task, few = mine[0]["task"], grid(mine, mine[0]["task"], "linear", shots[-1])
        gains = [few - grid(mine, other, "linear", shots[-1]) for other in ("untrained", "raw colours")]
        seeds = "" if len(mine) == 3 else f" (seeds: {len(mine)})"
        rest = [*(cell(gain, "+") for gain in gains), str(mine[0]["steps"])]
        line(f"`{name}`{seeds}", mine, task, shots, [*rest, f"{np.mean([row['cpu_s'] for row in mine]):.0f}"])
    for encoder in dict.fromkeys(row["encoder"] for row in found):  # one for each seed, whatever the method
        mine = list({row["seed"]: row for row in found if row["encoder"] == encoder}.values())
        line("untrained", mine, "untrained", shots, [""] * 4)
        for name in ("raw colours", "raw colours + place"):  # in patches of that encoder's size
            line(name, mine[:1], name, shots, [""] * 4)
    print(f"\nalways the most common class: {100 * found[0]['chance']:.1f}")


def line(name: str, mine: list[dict[str, Any]], representation: str, shots: list[str], rest: list[str]) -> None:
    cells = [cell(grid(mine, representation, reader, k)) for reader in READERS for k in shots]
    print("| " + " | ".join([name, mine[0]["encoder"], *cells, *rest]) + " |")


if __name__ == "__main__":
    main()
