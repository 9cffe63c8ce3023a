"""The parts of a combined task, built from the user's text options."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress

from selfsup.errors import UserError, unknown
from selfsup.task import Encoder, Task
from selfsup.tasks import TASKS, find_task
from selfsup.tasks.options import check_ranges

Option = int | float | str | bool


def build_part(name: str, encoder: Encoder, options: Mapping[str, Option], num_items: int) -> Task:
    """Return the task on this encoder; `num_items` goes to tasks that store something about each sample."""
    kind = find_task(name)
    required = {key for key, p in kind.hyperparameters().items() if p.default is inspect.Parameter.empty}
    if kind.needs_labels or kind.kind != "image" or name == "combined":
        raise UserError(f"{name} does not learn from unlabelled images only and cannot be combined")
    if kind.lr_of is not Task.lr_of:
        raise UserError(f"{name} sets the learning rate of one of its modules and cannot be combined")
    check_ranges(kind, options)
    part = kind(encoder, **options, **({"num_items": num_items} if "num_items" in required else {}))
    if part.encoder is not encoder:
        raise UserError(f"{name} changes its encoder and cannot be combined with other tasks")
    return part


def weights_of(text: str, count: int) -> list[float]:
    """Return `count` weights parsed from comma-separated numbers; all are 1 if the text is empty."""
    with suppress(ValueError):
        values = [float(word) for word in text.split(",")] if text else [1.0] * count
        if len(values) == count and all(0 < value < math.inf for value in values):
            return values
    raise UserError(f"--weights takes {count} positive numbers separated by commas, not {text!r}")


def options_of(names: Sequence[str], options: Mapping[str, Option]) -> dict[str, dict[str, Option]]:
    """Return the options of each task, from options named TASK.OPTION."""
    for name in names:
        if name not in TASKS:  # module:Class is not allowed: a recipe must never name code to import
            raise unknown("task", name, TASKS)
    known = {f"{name}.{option}": (name, option) for name in names for option in find_task(name).hyperparameters()}
    given: dict[str, dict[str, Option]] = {name: {} for name in names}
    for key, value in options.items():
        if key not in known:
            raise unknown("option of combined", key, known)
        name, option = known[key]
        given[name][option] = value
    return given
