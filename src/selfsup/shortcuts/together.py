"""Copies of a task, each with an encoder of its own, learn from the same batches; then they are tested on others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from selfsup.evaluation.draws import Interval, interval
from selfsup.shortcuts.cues import BLIND
from selfsup.source import Source
from selfsup.spec import has_views
from selfsup.task import Batch, Loss, Panel, Task, Views

MAX_HELD_OUT, MIN_PUZZLES = 1000, 500  # samples that are held out, puzzles that they are asked


class Together(Task):
    """The sum of the losses of several copies of a task; no gradient of one reaches another. Batch: the task's own."""

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        first = next(iter(tasks.values()))
        super().__init__(first.encoder)
        self.tasks = nn.ModuleDict(tasks)
        self._first = [first]  # in a list: not registered a second time

    def views(self, spec: Any) -> Views:
        """Return the task's views."""
        return self._first[0].views(spec)

    def samples(self, source: Any) -> Any:
        """Show each copy the source."""
        return [task.samples(source) for task in self._each()][-1]

    def loss(self, batch: Batch) -> Loss:
        """Return the sum of their losses."""
        for task in self._each():
            task.progress, task.steps = self.progress, self.steps
        return Loss(torch.stack([task.loss(batch).value for task in self._each()]).sum())

    def after_step(self) -> None:
        """Update each copy."""
        for task in self._each():
            task.after_step()

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the panels of the first copy."""
        return self._first[0].panels(batch, guess)

    def _each(self) -> list[Any]:
        return list(self.tasks.values())


class Answers(NamedTuple):
    """`scores` (parts,) of each copy, on parts of the held-out samples; `chance` where a formula gives it."""

    scores: dict[str, NDArray[np.float64]]
    metric: str  # "accuracy", "retrieval" or "loss"
    chance: float | None
    puzzles: int  # in all parts together

    @property
    def blind(self) -> NDArray[np.float64] | float:
        """The score of a guess that sees nothing: by the formula, else that of the shortcut probe that sees nothing."""
        return self.scores[BLIND] if self.chance is None else self.chance

    def gain(self, name: str, guess: NDArray[np.float64] | float = 0.0) -> Interval:
        """Return by how much a copy is above `guess` (a loss: below it), with the 95% interval over the parts.

        Few parts can agree by chance: the interval of a fraction of right answers is no narrower than that of as many
        single answers (Agresti & Coull, 1998).
        """
        scores = self.scores[name]
        mean, half, count = interval(((scores - guess) * (-1.0 if self.metric == "loss" else 1.0)).tolist())
        if self.metric != "loss":
            right = (scores.mean() * self.puzzles + 2) / (self.puzzles + 4)
            half = max(half, 1.96 * math.sqrt(right * (1 - right) / (self.puzzles + 4)))
        return Interval(mean, half, count)


def split(count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the numbers of the samples to learn from, and of a quarter (at most 1,000) to hold out."""
    order = np.random.default_rng(seed).permutation(count)
    held = min(MAX_HELD_OUT, count // 4)
    # those held out stay in random order, so that their parts are similar whatever the order of the data
    return np.sort(order[held:]), order[:held]


@torch.no_grad()
def ask(
    together: Together, source: Source, views: Views, indices: NDArray[np.int64], device: torch.device, seed: int
) -> Answers:
    """Score every copy on the held-out samples, in about 20 parts; few samples are asked about several times.

    The score is the metric `accuracy` of the task's loss where it has one. Otherwise, where a sample has several views,
    it is the fraction of samples whose first view is nearest to their own second view among those of the part;
    otherwise it is the loss.
    """
    together.eval()
    views = views.for_device(device)
    size = max(4, min(64, len(indices) // 20))
    parts = indices[: len(indices) // size * size].reshape(-1, size)
    times = math.ceil(MIN_PUZZLES / len(indices))
    found: dict[str, list[list[float]]] = {name: [] for name in together.tasks}
    metric, chance = "", None
    for part in parts:
        for values in found.values():
            values.append([])
        for epoch in range(times):
            fetched = views.fetch(source, part, seed, 10**6 + epoch)  # views that no training has seen
            batch = views.finish({key: value.to(device) for key, value in fetched.batch.items()})
            for name, task in together.tasks.items():
                metric, score, chance = _score(task, batch)  # type: ignore[arg-type]
                found[name][-1].append(float(score))
    scores = {name: np.array(values).mean(1) for name, values in found.items()}
    return Answers(scores, metric, chance, parts.size * times)


def _score(task: Task, batch: Batch) -> tuple[str, Tensor, float | None]:
    loss = task.loss(batch)
    if "accuracy" in loss.metrics:
        return "accuracy", loss.metrics["accuracy"], None if loss.chance is None else math.exp(-loss.chance)
    if "balanced_accuracy" in loss.metrics:  # of few puzzles a little below one half: what sees nothing is chance
        return "accuracy", loss.metrics["balanced_accuracy"], None
    x = batch.get("x")
    if x is None or not has_views(x, task.encoder.spec):
        return "loss", loss.value, None
    encoder = task.representation()
    first, second = (nn.functional.normalize(encoder(x[:, place]), dim=1) for place in (0, 1))
    nearest = (first @ second.T).argmax(1)
    return "retrieval", (nearest == torch.arange(len(x), device=x.device)).float().mean(), 1 / len(x)
