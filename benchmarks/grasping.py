"""Which object was taken? Grasp2Vec on kinds that it has seen and on others, beside colours and untrained encoders.

    python benchmarks/grasping.py --results grasping.jsonl      # 3 seeds, each with other kinds of objects

Data: `tray`, of which each seed draws 24 kinds to learn from and 6 others. Measured on episodes that were not learned
from, of the same kinds and of the others. All runs have the same number of steps; the learning rate decays to 0.
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
from results import Record, markdown, over_runs, record, write
from selfsup.control.tray import Tray
from selfsup.data.trajectory import About, InMemory
from selfsup.evaluation.frozen import FrozenEncoder
from selfsup.evaluation.taken import measure_objects


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--pad", type=int, default=4)
    parser.add_argument("--episodes", type=int, default=3000)
    parser.add_argument("--test", type=int, default=400, help="episodes of either kind to measure on")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--results", type=Path, help="a file to which a line of JSON a seed is added")
    args = parser.parse_args()
    found: list[Record] = []
    for seed in map(int, args.seeds.split(",")):
        found.append(one_seed(seed, args))
        print(f"seed {seed}: {found[-1]['found']}", flush=True)
        write(args.results, found[-1])
    print(table(found))


def recorded(seed: int, size: int, count: int, unseen: bool) -> InMemory:
    world = Tray(size, unseen)
    about = About(world.cameras, world.action, world.states, world.fps)
    source = InMemory(about, [world.episode(seed, k) for k in range(count)], "tray:unseen" if unseen else "tray")
    world.close()
    return source


def one_seed(seed: int, args: argparse.Namespace) -> Record:
    seen, unseen = (recorded(seed, args.size, n, u) for n, u in ((args.episodes + args.test, 0), (args.test, 1)))
    rows = np.arange(len(seen))
    began = time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        run = selfsup.pretrain(
            seen.take(rows[: args.episodes]), task="grasp2vec", encoder="convnet", steps=args.steps,
            batch_size=args.batch, lr=args.lr, seed=seed, out=Path(scratch) / "run", quiet=True, size=args.size,
            pad=args.pad, workers=0,
        )  # fmt: skip
        took = time.process_time() - began
        torch.manual_seed(seed + 100)
        encoders = [FrozenEncoder("grasp2vec", run.load(), run.spec)]
        encoders.append(FrozenEncoder("untrained", run.fresh_encoder(), run.spec, untrained=True))
        task: Any = run.fresh_task()
        encoders.append(FrozenEncoder("untrained grasp2vec", task.representation(), run.spec, untrained=True))
        measured: dict[str, dict[str, dict[str, float]]] = {"found": {}, "located": {}, "chance": {}}
        for name, part in (("seen", seen.take(rows[args.episodes :])), ("unseen", unseen)):
            result = measure_objects("grasp2vec", encoders, part, run.spec, camera="object", seed=0, device="cpu")
            measured["found"][name] = {row: round(value, 4) for row, value in result.rows.items()}
            measured["located"][name] = {row: round(value, 4) for row, value in result.located.items()}
            measured["chance"][name] = {"found": result.about["chance"], "located": result.about["filled"]}
        return record(run, None, "tray", "grasp2vec", cpu_s=round(took), **measured)


def table(found: list[Record]) -> str:
    """Return the table: how often the object is found, and how often the heat map is highest on it."""
    quoted = {name: name.replace("grasp2vec", "`grasp2vec`") for name in found[0]["found"]["seen"]}
    rows = [line(told, found, "found", name) for name, told in quoted.items()]
    rows.append(line("chance", found, "chance", "found"))
    rows += [
        line(f"heat map of {quoted[name]} on the object", found, "located", name)
        for name in found[0]["located"]["seen"]
    ]
    rows.append(line("part of the scene that it fills", found, "chance", "located"))
    return markdown(["%", "kinds seen", "kinds unseen"], rows)


def line(told: str, found: list[Record], what: str, name: str) -> list[str]:
    return [told, *(over_runs([one[what][kinds][name] for one in found]) for kinds in ("seen", "unseen"))]


if __name__ == "__main__":
    main()
