"""Which object was taken? Grasp2Vec on kinds that it has seen and on others, beside colours and untrained encoders.

    python benchmarks/grasping.py --jsonl grasp.jsonl           # 3 seeds, each with other kinds of objects

Data: `tray`, of which each seed draws 24 kinds to learn from and 6 others. Measured on episodes that were not learned
from, of the same kinds and of the others. All runs have the same number of steps; the learning rate decays to 0.
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
    parser.add_argument("--jsonl", type=Path)
    args = parser.parse_args()
    for seed in map(int, args.seeds.split(",")):
        row = vars(args) | {"jsonl": None, "seed": seed} | one_seed(seed, args)
        print(json.dumps(row), flush=True)
        if args.jsonl is not None:
            with args.jsonl.open("a") as file:
                file.write(json.dumps(row) + "\n")


def recorded(seed: int, size: int, count: int, unseen: bool) -> InMemory:
    world = Tray(size, unseen)
    about = About(world.cameras, world.action, world.states, world.fps)
    source = InMemory(about, [world.episode(seed, k) for k in range(count)], "tray:unseen" if unseen else "tray")
    world.close()
    return source


def one_seed(seed: int, args: argparse.Namespace) -> dict[str, Any]:
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
        loss = json.loads((run.folder / "metrics.jsonl").read_text().splitlines()[-1])["loss"]
        torch.manual_seed(seed + 100)
        encoders = [FrozenEncoder("grasp2vec", run.load(), run.spec)]
        encoders.append(FrozenEncoder("untrained", run.fresh_encoder(), run.spec, untrained=True))
        task: Any = run.fresh_task()
        encoders.append(FrozenEncoder("untrained grasp2vec", task.representation(), run.spec, untrained=True))
        found: dict[str, Any] = {}
        for name, part in (("seen", seen.take(rows[args.episodes :])), ("unseen", unseen)):
            result = measure_objects("grasp2vec", encoders, part, run.spec, camera="object", seed=0, device="cpu")
            found[name] = {row: round(value, 4) for row, value in result.rows.items()}
            found[f"{name} located"] = {row: round(value, 3) for row, value in result.located.items()}
            found[f"{name} chance"] = [round(result.about[key], 3) for key in ("chance", "filled")]
    return {"loss": loss, "cpu_s": round(took)} | found


if __name__ == "__main__":
    main()
