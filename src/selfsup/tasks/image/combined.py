"""Several pretext tasks on one encoder (Doersch and Zisserman, 2017)."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn

from selfsup.data import Source
from selfsup.errors import UserError, unknown
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.tasks import TASKS, find_task
from selfsup.views import ImageViews
from selfsup.views.merged import MergedViews, part_of

Option = int | float | str | bool


class Combined(Task):
    """Train one encoder on several tasks at once (Doersch and Zisserman, 2017, section 3).

    `tasks` are names of `selfsup tasks`, separated by commas, and `weights` the factors of their losses, 1 by default.
    `options` are those of the parts, as TASK.OPTION. Chance is the weighted sum of the parts'.

    Batch: the keys of every part behind its name, with the defaults `rotation.x` and `denoising.x` (B, C, H, W) float,
    and `noise` (B,) int64. Views that two parts describe alike are made once.
    Published: four tasks together, ResNet-101, VOC detection 70.5% against 66.8 to 69.1 of each alone.

    Deviations: the parts read the encoder's output, not a learned mixture of its layers; all have one learning rate.
    """

    paper = "Doersch & Zisserman, 2017"
    section = "images: distortion"

    def __init__(
        self,
        encoder: Encoder,
        *,
        items: int,
        tasks: str = "rotation,denoising",
        weights: str = "",
        options: dict[str, Option] | None = None,
    ) -> None:
        super().__init__(encoder)
        names = [name.strip() for name in tasks.split(",") if name.strip()]
        if len(names) < 2 or len(set(names)) < len(names):
            raise UserError(f"--tasks takes two or more different tasks, separated by commas, not {tasks!r}")
        given = _options(options or {}, names)
        self.parts = nn.ModuleDict({name: _part(name, encoder, given[name], items) for name in names})
        self.weights = dict(zip(names, _weights(weights, len(names)), strict=True))

    def _each(self) -> list[tuple[str, Task]]:
        return [(name, cast(Task, part)) for name, part in self.parts.items()]

    def samples(self, source: Source) -> Source:
        """Let every part measure the data."""
        for name, part in self._each():
            if part.samples(source) is not source:
                raise UserError(f"{name} cuts its own samples and cannot be combined with other tasks")
        return source

    def views(self, spec: Any) -> MergedViews:
        """Return the views of all parts."""
        views = {name: part.views(spec) for name, part in self._each()}
        plain = {name: view for name, view in views.items() if isinstance(view, ImageViews)}
        for name in views.keys() - plain.keys():
            raise UserError(f"{name} makes its own batches and cannot be combined with other tasks")
        return MergedViews.of(plain)

    def loss(self, batch: Batch) -> Loss:
        """Return the weighted sum of the parts' losses."""
        values, metrics, chances = [], {}, []
        for name, part in self._each():
            part.progress = self.progress
            loss = part.loss(part_of(batch, name))
            values.append(self.weights[name] * loss.value)
            chances.append(self.weights[name] * (math.nan if loss.chance is None else loss.chance))
            metrics[f"{name}_loss"] = loss.value.detach()
            metrics |= {f"{name}_{key}": value for key, value in loss.metrics.items()}
        return Loss(torch.stack(values).sum(), metrics, None if math.isnan(sum(chances)) else sum(chances))

    def after_step(self) -> None:
        """Update what the parts update."""
        for _, part in self._each():
            part.after_step()

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the pictures of the parts, one part after the other."""
        return [row for name, part in self._each() for row in part.panels(part_of(batch, name), guess)]


def _part(name: str, encoder: Encoder, options: dict[str, Option], items: int) -> Task:
    kind = find_task(name)
    required = {key for key, p in kind.hyperparameters().items() if p.default is inspect.Parameter.empty}
    if kind.needs_labels or kind.modality != "image" or kind is Combined:
        raise UserError(f"{name} does not learn from unlabelled pictures alone and cannot be combined")
    if kind.lr_of is not Task.lr_of:
        raise UserError(f"{name} needs a learning rate of its own for a part of it and cannot be combined")
    part = kind(encoder, **(options | ({"items": items} if "items" in required else {})))
    if part.encoder is not encoder:
        raise UserError(f"{name} changes its encoder and cannot be combined with other tasks")
    return part


def _weights(text: str, count: int) -> list[float]:
    try:
        values = [float(word) for word in text.split(",")] if text else [1.0] * count
    except ValueError:
        values = []
    if len(values) != count or not all(0 < value < math.inf for value in values):
        raise UserError(f"--weights takes {count} positive numbers separated by commas, not {text!r}")
    return values


def _options(options: Mapping[str, Option], names: Sequence[str]) -> dict[str, dict[str, Option]]:
    for name in names:
        if name not in TASKS:  # no module:Class here: the recipe keeps the name, and never names code to import
            raise unknown("task", name, TASKS)
    known = [f"{name}.{option}" for name in names for option in find_task(name).hyperparameters()]
    for key in options:
        if key not in known:
            raise unknown("option of combined", key, known)
    return {
        name: {key.partition(".")[2]: v for key, v in options.items() if key.startswith(f"{name}.")} for name in names
    }
