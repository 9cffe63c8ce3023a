"""Several pretext tasks on one encoder (Doersch and Zisserman, 2017)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

import torch
from torch import nn

from selfsup.base.options import names_in
from selfsup.errors import UserError, unknown
from selfsup.source import Source
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.tasks.parts import Option, build_part, check_source, find_part, image_views, loss_of_part, lr_of_part
from selfsup.views.image.merged import MergedViews, part_of


class Combined(Task):
    """Train one encoder on several tasks at once (Doersch and Zisserman, 2017, section 3).

    The loss is the weighted sum of the tasks' losses, and chance is the weighted sum of their chance values.

    Batch: the keys of every task, prefixed with its name: with the defaults `rotation.x` and `denoising.x`
    (B, C, H, W) float, and `noise` (B,) int64. Views that several tasks share are made once.
    Published: four tasks together, ResNet-101, VOC detection 70.5%; each alone 66.8 to 69.1%.
    Deviations: every task reads the encoder's output, not a learned mixture of its layers; the defaults of no
    task for the training (learning rate, clipping) are used, and those that set learning rates set them for their own
    heads and not for the encoder.

    Args:
        tasks: Two or more names from `selfsup tasks`, separated by commas.
        loss_weights: Weight of each task's loss, separated by commas; all 1 if left empty.
        options: Options of the tasks, as TASK.OPTION.
    """

    paper = "Doersch & Zisserman, 2017"
    section = "images: distortion"
    keeps_samples = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        tasks: str = "rotation,denoising",
        loss_weights: str = "",
        options: dict[str, Option] | None = None,
    ) -> None:
        super().__init__(encoder)
        given = options_of(tasks, options or {})
        self.parts = nn.ModuleDict({name: build_part(name, encoder, own) for name, own in given.items()})
        for name, part in self._each():
            if part.encoder is not encoder:
                raise UserError(f"{name} changes its encoder, so it cannot be a part of another task")
        self.weights = dict(zip(given, weights_of(loss_weights, len(given)), strict=True))

    def _each(self) -> list[tuple[str, Task]]:
        return [(name, cast(Task, part)) for name, part in self.parts.items()]

    @classmethod
    def resolve(cls, source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
        """Take the options of each task that depend on the data."""
        tasks = given.get("tasks", cls.hyperparameters()["tasks"].default)
        parts = options_of(tasks, given.get("options") or {})
        found = {name: find_part(name).resolve(source, own) for name, own in parts.items()}
        options = {f"{name}.{key}": value for name, own in found.items() for key, value in own.items()}
        return {"options": options} if options else {}

    def samples(self, source: Source) -> Source:
        """Let every task measure the data."""
        for name, part in self._each():
            check_source("combined", name, part, source)
        return source

    def views(self, spec: Any) -> MergedViews:
        """Return the views of all tasks."""
        return MergedViews.of({name: image_views(name, part, spec) for name, part in self._each()})

    def loss(self, batch: Batch) -> Loss:
        """Return the weighted sum of the tasks' losses."""
        losses = {name: loss_of_part(self, part, part_of(batch, name)) for name, part in self._each()}
        value = torch.stack([self.weights[name] * loss.value for name, loss in losses.items()]).sum()
        chances = [self.weights[name] * loss.chance for name, loss in losses.items() if loss.chance is not None]
        chance = sum(chances) if len(chances) == len(losses) else None
        each = {name: {"loss": loss.value.detach(), **loss.metrics} for name, loss in losses.items()}
        return Loss(value, {f"{name}_{key}": x for name, one in each.items() for key, x in one.items()}, chance)

    def after_step(self) -> None:
        """Update the EMA encoders, queues and so on of every task."""
        for _, part in self._each():
            part.after_step()

    def lr_of(self, child: str, scheduled: float, peak: float) -> float:
        """Ask the task whose child it is; the encoder has the scheduled learning rate."""
        parts, _, rest = child.partition(".")
        name, _, own = rest.partition(".")
        return lr_of_part(self, cast(Task, self.parts[name]), own, scheduled, peak) if parts == "parts" else scheduled

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the panels of every task, one task after another."""
        return [row for name, part in self._each() for row in part.panels(part_of(batch, name), guess)]


def weights_of(text: str, count: int) -> list[float]:
    """Return `count` weights parsed from comma-separated numbers; all are 1 if the text is empty."""
    with suppress(ValueError):
        values = [float(word) for word in text.split(",")] if text else [1.0] * count
        if len(values) == count and all(0 < value < math.inf for value in values):
            return values
    raise UserError(f"--loss-weights takes {count} positive numbers separated by commas, not {text!r}")


def options_of(tasks: str, options: Mapping[str, Option]) -> dict[str, dict[str, Option]]:
    """Return each task's own options, from names separated by commas and options named TASK.OPTION."""
    names = names_in(tasks)
    if len(names) < 2 or len(set(names)) < len(names):
        raise UserError(f"--tasks takes two or more different tasks, separated by commas, not {tasks!r}")
    known = {f"{name}.{option}": (name, option) for name in names for option in find_part(name).hyperparameters()}
    given: dict[str, dict[str, Option]] = {name: {} for name in names}
    for key, value in options.items():
        if key not in known:
            raise unknown("option of combined", key, known)
        name, option = known[key]
        given[name][option] = value
    return given
