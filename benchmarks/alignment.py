"""Alignment of two cameras on motions that were never seen: time-contrastive networks beside what needs no learning.

    python benchmarks/alignment.py                                     # tcn, 5 folds of 3 held-out motions
    python benchmarks/alignment.py --task tcn_single --jsonl align.jsonl
    python benchmarks/alignment.py --group 32                          # one sequence a batch
    python benchmarks/alignment.py --group 1 --any-episode             # many sequences a batch

Data: `mocap2`, 15 motions. Each fold holds out 3 motions, and every fifth episode of the others: known motions from
directions that were never seen. All runs have the same number of steps. Errors: see docs/control.md; chance is 1/3.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import selfsup
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
    parser.add_argument("--jsonl", type=Path)
    args = parser.parse_args()
    data = recorded(args.size, args.yaws)
    options: dict[str, Any] = {"group_size": args.group, "pad": args.pad}
    if args.task != "tcn_single":
        options["same_episode"] = not args.any_episode
    if args.task == "tcn":
        options["objective"] = args.objective
    for fold in map(int, args.folds.split(",")):
        row = vars(args) | {"jsonl": None, "fold": fold} | one_fold(data, fold, args, options)
        print(json.dumps(row), flush=True)
        if args.jsonl is not None:
            with args.jsonl.open("a") as file:
                file.write(json.dumps(row) + "\n")


def recorded(size: int, yaws: int) -> InMemory:
    world = Mocap(size)
    about = About(world.cameras, world.action, world.states, world.fps)
    return InMemory(about, [world.episode(0, k) for k in range(yaws * len(world.files))], "mocap2")


def one_fold(data: Episodes, fold: int, args: argparse.Namespace, options: dict[str, Any]) -> dict[str, Any]:
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
        loss = json.loads((run.folder / "metrics.jsonl").read_text().splitlines()[-1])["loss"]
        torch.manual_seed(fold + 100)
        encoders = [FrozenEncoder(args.task, run.load(), run.spec)]
        encoders.append(FrozenEncoder("untrained", run.fresh_encoder(), run.spec, untrained=True))
        task: Any = run.fresh_task()
        encoders.append(FrozenEncoder(f"untrained {args.task}", task.representation(), run.spec, untrained=True))
        found: dict[str, Any] = {}
        for name, rows in parts.items():
            some = np.flatnonzero(rows)[:: 4 if name == "train" else 1]
            result = measure_alignment(args.task, encoders, data.take(some), run.spec, seed=0, device="cpu")
            found[name] = {row: [round(result.error(row), 4), round(result.tau(row), 3)] for row in result.rows}
    return {"loss": loss, "cpu_s": round(took), "motions": [data.labels.classes[i] for i in held]} | found


if __name__ == "__main__":
    main()
