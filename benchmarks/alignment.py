"""Alignment of two cameras on motions that were never seen: time-contrastive networks beside what needs no learning.

    python benchmarks/alignment.py                                     # tcn, 5 folds of 3 held-out motions
    python benchmarks/alignment.py --task tcn_single --results alignment.jsonl
    python benchmarks/alignment.py --group 32                          # one sequence a batch
    python benchmarks/alignment.py --group 1 --any-episode             # many sequences a batch

Data: `mocap2`, 15 motions. Each fold holds out 3 motions, and every fifth episode of the others: known motions from
directions that were never seen. All runs have the same number of steps. Errors: see docs/control.md; chance is 1/3.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import selfsup
from results import Record, gain, grouped, markdown, over_runs, record, write
from selfsup.control.mocap import Mocap
from selfsup.data.trajectory import About, Episodes, InMemory
from selfsup.evaluation.alignment import measure_alignment
from selfsup.evaluation.frozen import FrozenEncoder

FOLDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--task", default="tcn", choices=["tcn", "tcn_single", "mftcn"])
    parser.add_argument("--objective", default="npairs")
    parser.add_argument("--group", type=int, default=16, help="moments of one sequence that are together in a batch")
    parser.add_argument("--any-episode", action="store_true", help="negatives of other sequences too")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--pad", type=int, default=4)
    parser.add_argument("--yaws", type=int, default=20)
    parser.add_argument("--folds", default="0,1,2,3,4")
    parser.add_argument("--results", type=Path, help="a file to which a line of JSON a fold is added")
    args = parser.parse_args()
    data = recorded(args.size, args.yaws)
    options: dict[str, Any] = {"group_size": args.group, "pad": args.pad}
    found: list[Record] = []
    if args.task != "tcn_single":
        options["same_episode"] = not args.any_episode
    if args.task == "tcn":
        options["objective"] = args.objective
    for fold in map(int, args.folds.split(",")):
        found.append(one_fold(data, fold, args, options))
        print(f"fold {fold}: {found[-1]['errors']}", flush=True)
        write(args.results, found[-1])
    print(table(found))


def recorded(size: int, yaws: int) -> InMemory:
    world = Mocap(size)
    about = About(world.cameras, world.action, world.states, world.fps)
    return InMemory(about, [world.episode(0, k) for k in range(yaws * len(world.files))], "mocap2")


def one_fold(data: Episodes, fold: int, args: argparse.Namespace, options: dict[str, Any]) -> Record:
    assert data.labels is not None
    motion, turn = data.labels.ids, np.arange(len(data)) // len(data.labels.classes)
    held = np.random.default_rng(0).permutation(len(data.labels.classes))[fold::FOLDS]
    new = np.isin(motion, held)
    other = ~new & (turn % 5 == 4)
    parts = {"train": ~new & ~other, "yaws": other, "motions": new}
    began = time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        run = selfsup.pretrain(
            data.take(np.flatnonzero(parts["train"])), task=args.task,
            encoder="frames:convnet" if args.task == "mftcn" else "convnet", steps=args.steps, batch_size=args.batch,
            lr=args.lr, seed=fold, out=Path(scratch) / "run", quiet=True, size=args.size, workers=0, **options,
        )  # fmt: skip
        took = time.process_time() - began
        torch.manual_seed(fold + 100)
        encoders = [FrozenEncoder(args.task, run.load(), run.spec)]
        encoders.append(FrozenEncoder("untrained", run.fresh_encoder(), run.spec, untrained=True))
        task: Any = run.fresh_task()
        encoders.append(FrozenEncoder(f"untrained {args.task}", task.representation(), run.spec, untrained=True))
        found: dict[str, dict[str, dict[str, float]]] = {"errors": {}, "tau": {}}
        for name, rows in parts.items():
            some = np.flatnonzero(rows)[:: 4 if name == "train" else 1]
            result = measure_alignment(args.task, encoders, data.take(some), run.spec, seed=0, device="cpu")
            found["errors"][name] = {row: round(result.error(row), 4) for row in result.rows}
            found["tau"][name] = {row: round(result.tau(row), 3) for row in result.rows}
        words = [args.task, *(f"{key}={value}" for key, value in options.items() if key != "pad")]
        held_out = [data.labels.classes[i] for i in held]
        return record(run, None, "mocap2", " ".join(words), fold=fold, cpu_s=round(took), held_out=held_out, **found)


def table(found: list[Record]) -> str:
    """Return the table: errors by what was held out, over folds, and those on new motions less the pixels' there."""
    rows: list[list[str]] = []
    groups = grouped(found, "name", "steps")
    for mine in groups:
        first = mine[0]
        cost = [f"{first['steps']:,}", f"{np.mean([one['cpu_s'] for one in mine]) / 60:.1f}"]
        rows.append(line(f"`{first['name']}`", mine, first["task"], cost))
        rows.append(line(f"untrained `{first['task']}`", mine, f"untrained {first['task']}", ["", ""]))
    floors = [name for name in found[0]["errors"]["motions"] if found[0]["task"] not in name]
    rows += [line(name, groups[0], name, ["", ""]) for name in floors]
    parts = ["motions never seen", "minus pixels", "folds below pixels", "directions never seen", "learned from"]
    return markdown(
        ["alignment error, % of the episode", *parts, "tau, motions never seen", "steps", "CPU-minutes"], rows
    )


def line(told: str, found: list[Record], name: str, cost: list[str]) -> list[str]:
    new, yaws, seen = ([one["errors"][part][name] for one in found] for part in ("motions", "yaws", "train"))
    paired = np.array(new) - [one["errors"]["motions"]["pixels"] for one in found]
    against = ["", ""] if name == "pixels" else [gain(paired[:, None]), f"{(paired < 0).sum()} of {len(found)}"]
    tau = f"{np.mean([one['tau']['motions'][name] for one in found]):.2f}"
    return [told, over_runs(new), *against, over_runs(yaws), over_runs(seen), tau, *cost]


if __name__ == "__main__":
    main()
