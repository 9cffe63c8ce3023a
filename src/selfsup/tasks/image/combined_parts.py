"""The parts of a combined task, built from what a user gives by words."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress

from selfsup.errors import UserError, unknown
from selfsup.task import Encoder, Task
from selfsup.tasks import TASKS, find_task

Option = int | float | str | bool


def build_part(name: str, encoder: Encoder, options: Mapping[str, Option], items: int) -> Task:
    """Return the task on this encoder; `items` is the number of samples, for tasks that keep something of each."""
    kind = find_task(name)
    required = {key for key, p in kind.hyperparameters().items() if p.default is inspect.Parameter.empty}
    if kind.needs_labels or kind.kind != "image" or name == "combined":
        raise UserError(f"{name} does not learn from unlabelled images alone and cannot be combined")
    if kind.lr_of is not Task.lr_of:
        raise UserError(f"{name} needs a learning rate of its own for a part of it and cannot be combined")
    part = kind(encoder, **options, **({"items": items} if "items" in required else {}))
    if part.encoder is not encoder:
        raise UserError(f"{name} changes its encoder and cannot be combined with other tasks")
    return part


def weights_of(text: str, count: int) -> list[float]:
    """Return `count` weights from numbers separated by commas; all are 1 where there is no text."""
    with suppress(ValueError):
        values = [float(word) for word in text.split(",")] if text else [1.0] * count
        if len(values) == count and all(0 < value < math.inf for value in values):
            return values
    raise UserError(f"--weights takes {count} positive numbers separated by commas, not {text!r}")


def options_of(names: Sequence[str], options: Mapping[str, Option]) -> dict[str, dict[str, Option]]:
    """Return the options of each of these tasks from those named TASK.OPTION."""
    for name in names:
        if name not in TASKS:  # no module:Class here: the recipe keeps the name, and never names code to import
            raise unknown("task", name, TASKS)
    known = {f"{name}.{option}": (name, option) for name in names for option in find_task(name).hyperparameters()}
    given: dict[str, dict[str, Option]] = {name: {} for name in names}
    for key, value in options.items():
        if key not in known:
            raise unknown("option of combined", key, known)
        name, option = known[key]
        given[name][option] = value
    return given
