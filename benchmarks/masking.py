"""What dropping masked patches saves: a step of a masked task at 75% against one that masks a single patch.

    python benchmarks/masking.py [--task mae] [--encoder vit] [--size 64] [--batch 64] [--rounds 7]

Forward, backward and the optimizer, float32, one thread, taking turns; the median of the paired ratios of CPU time.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch

from selfsup.commands.doctor import processor
from selfsup.data.image import Arrays
from selfsup.encoders import build_encoder
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Task
from selfsup.tasks import find_task
from selfsup.train.optim import build_optimizer
from selfsup.views.loader import batches


def seconds(task: Task, optimizer: torch.optim.Optimizer, batch: Batch) -> float:
    """Return the processor time of one step."""
    began = time.process_time()
    task.loss(batch).value.backward()
    optimizer.step()
    optimizer.zero_grad()
    task.after_step()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--task", default="mae")
    parser.add_argument("--encoder", default="vit")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    spec = ImageSpec.of(args.size, 3)
    pixels = np.random.default_rng(0).integers(0, 256, (args.batch, args.size, args.size, 3), dtype=np.uint8)
    task_class, source = find_task(args.task), Arrays(pixels, None, "noise")
    encoder = build_encoder(args.encoder, spec)
    tasks = [task_class(build_encoder(args.encoder, spec), mask_ratio=ratio) for ratio in (0.75, 1 / encoder.grid**2)]
    optimizers = [build_optimizer(task, "adamw", 1e-3, 0.05) for task in tasks]
    views = tasks[0].views(spec)
    fetched = next(iter(batches(source, views, batch_size=args.batch, seed=0, start=0, steps=1, workers=0)))
    batch = views.finish(fetched.batch)
    pairs = [
        [seconds(task, optimizer, batch) for task, optimizer in zip(tasks, optimizers, strict=True)]
        for _ in range(args.rounds + 1)
    ][1:]
    ratios = [few / all_ for few, all_ in pairs]
    masked, whole = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"{args.task}, {args.encoder}, {encoder.grid**2} patches, {args.batch} images: {masked:.2f} s at 75%,")
    print(f"{whole:.2f} s with one masked patch; ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to", end=" ")
    print(f"{max(ratios):.2f}); {processor()}, torch {torch.__version__}")


if __name__ == "__main__":
    main()
