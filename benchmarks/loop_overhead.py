"""What our loop costs compared with a bare torch loop: same task, batches, optimizer and precision, taking turns.

    python benchmarks/loop_overhead.py [--rounds 9] [--steps 40]

Prints the median of the paired ratios. Our loop runs as a user runs it: metrics.jsonl, TensorBoard, progress.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from selfsup.commands.doctor import processor
from selfsup.data.image import Arrays
from selfsup.encoders import build_encoder
from selfsup.spec import ImageSpec
from selfsup.task import Task
from selfsup.tasks.image.rotation import Rotation
from selfsup.train.device import make_fabric
from selfsup.train.fit import fit
from selfsup.train.optim import build_optimizer
from selfsup.train.plan import Plan
from selfsup.train.precision import resolve_precision
from selfsup.views.loader import batches


def bare(task: Task, source: Arrays, spec: ImageSpec, plan: Plan, bfloat16: bool) -> float:
    task.train().to(memory_format=torch.channels_last)
    optimizer = build_optimizer(task, plan.optimizer, plan.lr, plan.weight_decay)
    views = task.views(spec)
    stream = batches(source, views, batch_size=plan.batch_size, seed=plan.seed, start=0, steps=plan.steps, workers=0)
    began = time.perf_counter()
    for fetched in stream:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = task.loss(views.finish(fetched.batch)).value
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return time.perf_counter() - began


def ours(task: Task, source: Arrays, spec: ImageSpec, plan: Plan, bfloat16: bool) -> float:
    fabric = make_fabric("cpu", "bfloat16" if bfloat16 else "float32")
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        fit(task, source, task.views(spec), plan, fabric, folder=Path(folder), workers=0)
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    source = Arrays(np.random.default_rng(0).integers(0, 255, (4000, 28, 28, 1), dtype=np.uint8))
    spec = source.spec()
    plan = Plan(steps=options.steps, batch_size=128)
    bfloat16 = resolve_precision("auto", torch.device("cpu")) == "bfloat16"
    task = Rotation(build_encoder("convnet", spec))
    bare(copy.deepcopy(task), source, spec, plan, bfloat16)
    ratios, steps = [], []
    for number in range(options.rounds):
        pair = [(bare, 0), (ours, 1)] if number % 2 else [(ours, 1), (bare, 0)]
        seconds = {place: run(copy.deepcopy(task), source, spec, plan, bfloat16) for run, place in pair}
        ratios.append(seconds[1] / seconds[0])
        steps.append(seconds[0] / plan.steps)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {processor()}")
    print(
        f"bare step: {1000 * statistics.median(steps):.0f} ms (median of {options.rounds} rounds of {plan.steps} steps)"
    )
    print(f"loop / bare: median {statistics.median(ratios):.4f}, min {min(ratios):.4f}, max {max(ratios):.4f}")


if __name__ == "__main__":
    main()
