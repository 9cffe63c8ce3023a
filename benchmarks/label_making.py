"""What fraction of a training step goes into making labels, for every task on images.

    python benchmarks/label_making.py [--rounds 9] [--batch 128] [--size 64] [--encoder convnet] [--tasks a,b]

A step is loss, gradient and optimizer on a batch in memory. Making labels is all of the loss but the forward passes of
the encoder, the heads and colorization's cross-entropy over its soft labels (another cross-entropy counts as
label-making too). Both are timed in the same step, so that other work on the machine slows both. Printed are the
median fraction over the rounds, the smallest and the largest, and the cost relative to those forward passes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from selfsup.data.image import Arrays
from selfsup.encoders import build_encoder
from selfsup.errors import UserError
from selfsup.source import Labels
from selfsup.task import Task
from selfsup.tasks import TASKS, find_task
from selfsup.tasks.resolve import resolve_task
from selfsup.train.device import keep_memory
from selfsup.train.optim import build_optimizer
from selfsup.views.loader import batches


class Timed:
    """The seconds that some modules take, forward, while it is entered."""

    def __init__(self, modules: list[nn.Module]) -> None:
        self.modules, self.seconds, self.depth, self.began = modules, 0.0, 0, 0.0

    def __enter__(self) -> Timed:
        self.handles = [m.register_forward_pre_hook(self._begin) for m in self.modules]
        self.handles += [m.register_forward_hook(self._end) for m in self.modules]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self.handles:
            handle.remove()

    def _begin(self, module: nn.Module, inputs: object) -> None:
        self.depth += 1
        if self.depth == 1:
            self.began = time.perf_counter()

    def _end(self, module: nn.Module, inputs: object, output: object) -> None:
        self.depth -= 1
        if self.depth == 0:
            self.seconds += time.perf_counter() - self.began


def step(task: Task, batch: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> tuple[float, float, float]:
    """Return the seconds of a step, those of its loss outside the modules, and those inside."""
    with Timed(list(task.modules())[1:]) as inside:  # all of them, because `forward` does not call `maps` and `tokens`
        began = time.perf_counter()
        loss = task.loss(batch).value
        made = time.perf_counter() - began - inside.seconds
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return time.perf_counter() - began, made, inside.seconds


def fractions_of(name: str, options: argparse.Namespace, source: Arrays) -> Callable[[], tuple[float, float]]:
    """Return a function that measures one round: the percentage of the step, and of the forward passes."""
    torch.manual_seed(0)
    _, task_class, values, source = resolve_task(name, source, {})
    spec = source.spec()
    task = task_class(build_encoder(options.encoder or task_class.small_encoder, spec), **values)
    task.train().to(memory_format=torch.channels_last)
    source, views = task.samples(source), task.views(spec)
    fetched = next(iter(batches(source, views, batch_size=options.batch, seed=0, start=0, steps=1, workers=0)))
    batch = dict(views.finish(fetched.batch))
    optimizer = build_optimizer(task, "adamw", 1e-4, 0.05)
    step(task, batch, optimizer)

    def measure() -> tuple[float, float]:
        whole, made, inside = step(task, batch, optimizer)
        return 100 * made / whole, 100 * made / inside

    return measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--encoder", help="one for all; by default each task's small one")
    parser.add_argument("--tasks", help="by default all tasks on images that need no labels")
    options = parser.parse_args()
    keep_memory()  # as training does
    generator = np.random.default_rng(0)
    x = generator.integers(0, 255, (4 * options.batch, options.size, options.size, 3), dtype=np.uint8)
    source = Arrays(x, Labels.of([f"{i % 4}" for i in range(len(x))]))
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, batch {options.batch}, {options.size} pixels")
    for name in options.tasks.split(",") if options.tasks else TASKS:
        task_class = find_task(name)
        if task_class.kind != "image" or task_class.needs_labels:
            continue
        try:
            measure = fractions_of(name, options, source)
        except UserError as error:
            print(f"{name}: {error}")
            continue
        steps, passes = (sorted(values) for values in zip(*(measure() for _ in range(options.rounds)), strict=True))
        told = f"{statistics.median(steps):.1f}% of a step ({steps[0]:.1f} to {steps[-1]:.1f})"
        print(f"{name}: {told}, {statistics.median(passes):.1f}% beside the forward passes", flush=True)


if __name__ == "__main__":
    main()
