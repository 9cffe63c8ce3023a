"""Time to accuracy: seconds of this machine until a few labels are enough, for our recipes and for lightly's SimCLR.

    python benchmarks/speedrun.py mnist5k mnist                 # ours
    python benchmarks/speedrun.py emoji --peer                  # lightly's modules, loop and transforms too
    python benchmarks/speedrun.py cifar10 --cifar10 FOLDER      # FOLDER/train and FOLDER/test, class folders
    python benchmarks/speedrun.py emoji --peer --seeds 1 --steps 2 --peer-seconds 2   # a smoke test

A goal is data, a reader, labels per class and an accuracy. Budgets are tried from small to large; each is a whole run
with its own schedule, in a process of its own, over three seeds of pretraining and five draws of the labels. The first
budget whose mean is at the goal counts. Seconds are those of `pretrain`, reading the data and writing the run included
(for lightly: of its loop alone), wall and CPU, on all threads, of workers too; imports, the first compilation of the
views, and the evaluation are left out on both sides. Where the goal is `None` it is what lightly's SimCLR reaches in
ten minutes. Both sides use a GPU where there is one, and get BatchNorm's statistics of plain images.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from importlib.util import find_spec
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import torch

import selfsup
from results import cell
from selfsup.commands.doctor import processor
from selfsup.data.open import open_data
from selfsup.train.checkpoint import load_tensors, save_tensors
from selfsup.train.device import make_fabric
from selfsup.train.recalibrate import recalibrate


class Goal(NamedTuple):
    """Reach `accuracy` with `shots` labels per class, by the best of our recipes: a task and its options."""

    data: str
    reader: str
    shots: str
    accuracy: float | None
    task: str
    options: dict[str, Any]
    steps: tuple[int, ...]
    size: int | None = None


ROTATION = {"pad": 3, "flip": 0.0, "batch_size": 64, "low_res_first": 0.7}
GOALS = {
    "mnist5k": Goal("mnist5k", "propagate", "1", 0.97, "rotation", ROTATION, (400, 600, 800, 1000, 1300, 1700)),
    "mnist": Goal("mnist", "propagate", "1", 0.98, "rotation", ROTATION, (1000, 2000, 3000, 4000, 5000)),
    "emoji": Goal("emoji", "linear", "20", None, "simclr", {"min_scale": 0.5}, (50, 100, 200, 400, 800), 64),
    "cifar10": Goal("", "linear", "all", 0.70, "simclr", {}, (500, 1000, 1500, 2000, 3000)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("goals", nargs="*", default=["mnist5k"], help=", ".join(GOALS))
    parser.add_argument("--cifar10", default="cifar10", help="the folder with train/ and test/")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, nargs="+", help="budgets, in place of those of the goal")
    parser.add_argument("--peer", action="store_true", help="lightly's SimCLR too")
    parser.add_argument("--peer-seconds", type=float, default=600.0, help="of lightly's SimCLR")
    parser.add_argument("--one", nargs=4, metavar=("GOAL", "SIDE", "STEPS", "SEED"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        name, side, steps, seed = args.one
        print(json.dumps((peer if side == "lightly" else ours)(args, GOALS[name], int(steps), int(seed))))
        return
    unknown = set(args.goals) - GOALS.keys()
    if unknown:
        parser.error(f"unknown goal {min(unknown)}: give some of {', '.join(GOALS)}")
    peers = {name for name in args.goals if args.peer or GOALS[name].accuracy is None}
    if peers and not find_spec("lightly"):
        parser.error(f"{', '.join(sorted(peers))} beside lightly: pip install 'selfsup[bench]'")
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "timm", *(["lightly"] if peers else [])))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else processor()
    print(f"{device}, {torch.get_num_threads()} threads; {packages}")
    for name in args.goals:
        goal = GOALS[name].accuracy
        if name in peers:
            found = [run(args, name, "lightly", 0, seed) for seed in range(args.seeds)]
            show(name, "lightly", f"{args.peer_seconds:.0f} seconds", found)
            goal = goal or fmean(fmean(row["values"]) for row in found)
        for steps in args.steps or GOALS[name].steps:
            found = [run(args, name, "ours", steps, seed) for seed in range(args.seeds)]
            show(name, "ours", f"{steps} steps", found)
            if fmean(fmean(row["values"]) for row in found) >= goal:
                print(f"{name}: {goal:.1%} is reached", flush=True)
                break


def run(args: argparse.Namespace, *one: object) -> dict[str, Any]:
    options = ["--cifar10", args.cifar10, "--peer-seconds", str(args.peer_seconds)]
    words = [sys.executable, __file__, *options, "--one", *map(str, one)]
    return dict(json.loads(subprocess.check_output(words, text=True).splitlines()[-1]))


def show(name: str, side: str, budget: str, found: list[dict[str, Any]]) -> None:
    wall, cpu = (fmean(row[key] for row in found) for key in ("wall", "cpu"))
    accuracy = cell(np.array([row["values"] for row in found]))
    print(f"{name:8} {side:8} {budget:12} {accuracy:>12}   {wall:6.0f} s wall, {cpu:6.0f} s CPU", flush=True)


def parts(args: argparse.Namespace, goal: Goal) -> tuple[str, str, str | None]:
    if goal.data:
        return f"{goal.data}:train", f"{goal.data}:test", None
    return f"{args.cifar10}/train", f"{args.cifar10}/test", "folders"


def ours(args: argparse.Namespace, goal: Goal, steps: int, seed: int) -> dict[str, Any]:
    train, test, labels = parts(args, goal)
    options = goal.options | ({"size": goal.size} if goal.size else {}) | {"encoder": "convnet", "quiet": True}
    with tempfile.TemporaryDirectory() as folder:
        selfsup.pretrain(train, task=goal.task, steps=1, out=f"{folder}/warm", **options)
        before = clocks()
        trained = selfsup.pretrain(train, task=goal.task, steps=steps, seed=seed, out=f"{folder}/run", **options)
        return spent(before) | read(trained, goal, train, test, labels)


def clocks() -> tuple[float, float]:
    """Return the time of day and the CPU time of this process and of the workers that have ended."""
    return time.perf_counter(), sum(os.times()[:4])


def spent(before: tuple[float, float]) -> dict[str, float]:
    return {key: now - then for key, now, then in zip(("wall", "cpu"), clocks(), before, strict=True)}


def read(trained: Any, goal: Goal, train: str, test: str, labels: str | None) -> dict[str, Any]:
    evaluation = selfsup.evaluate(
        trained, data=train, labels=labels, test=test, test_labels=labels, shots=goal.shots, protocol=goal.reader,
        scratch=False, draws=5, seed=0, quiet=True,
    )  # fmt: skip
    shots = None if goal.shots == "all" else int(goal.shots)
    return {"values": list(evaluation.score(trained.task, goal.reader, shots).values)}


def peer(args: argparse.Namespace, goal: Goal, steps: int, seed: int) -> dict[str, Any]:
    """Train lightly's SimCLR for `--peer-seconds` as its examples do, in our encoder, and read it as ours is read."""
    from torch.utils.data import DataLoader

    from peers_accuracy import LOADER, PEERS, Images, pair

    train, test, labels = parts(args, goal)
    source, device = open_data(train), make_fabric("auto", "auto").device
    spec = source.spec(goal.size)
    _, task = pair("simclr", "convnet", spec, source, seed)
    task.to(device)
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-3)
    images = np.stack([np.asarray(source.read(index)) for index in range(len(source))])
    dataset, before = Images(images, PEERS["simclr"][1](spec.size)), clocks()
    while time.perf_counter() - before[0] < args.peer_seconds:
        for batch in DataLoader(dataset, 128, **LOADER):
            task.of_crops([x.to(device) for x in batch]).backward()
            optimizer.step()
            optimizer.zero_grad()
            if time.perf_counter() - before[0] >= args.peer_seconds:
                break
    trained = spent(before)
    with tempfile.TemporaryDirectory() as folder:  # a run with these weights, so that the same command reads it
        kept = selfsup.pretrain(
            train, task="simclr", encoder="convnet", size=goal.size, steps=1, out=f"{folder}/run", quiet=True
        )
        recalibrate(task.encoder, source, spec, seed=seed, device=device)
        path = kept.folder / "encoder.safetensors"
        save_tensors(path, task.encoder.state_dict(), load_tensors(path)[1])
        return trained | read(kept, goal, train, test, labels)


if __name__ == "__main__":
    main()
