"""Tasks as parts of another one, which share its encoder: `combined`, `s4l`, `metadata`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from selfsup.base.notes import say
from selfsup.errors import UserError, unknown
from selfsup.source import Source
from selfsup.task import Batch, Encoder, Loss, Task
from selfsup.tasks import TASKS, find_task
from selfsup.tasks.options import check_ranges
from selfsup.views.image import ImageViews

Option = int | float | str | bool


def find_part(name: str) -> type[Task]:
    """Return the class of a task that can be a part of another one; raise `UserError` for any other."""
    if name not in TASKS:  # module:Class is not allowed: a recipe must never name code to import
        raise unknown("task", name, TASKS)
    task = find_task(name)
    if task.needs_labels or task.kind != "image":
        raise UserError(f"{name} does not learn from unlabelled images, so it cannot be a part of another task")
    if name in ("combined", "metadata"):
        raise UserError(f"{name} is several tasks itself, so it cannot be a part of another task")
    return task


def build_part(name: str, encoder: Encoder, options: Mapping[str, Any]) -> Task:
    """Return the task on this encoder. Raises `UserError` for unknown or missing options, and those out of range."""
    task = find_part(name)
    known = task.hyperparameters()
    for option in options:
        if option not in known:
            raise unknown(f"option of {name}", option, known)
    check_ranges(task, options)
    missing = [key for key, p in known.items() if p.default is inspect.Parameter.empty and key not in options]
    if missing:
        raise UserError(f"{name} needs {missing[0]} among its options")
    return task(encoder, **options)


def image_views(name: str, part: Task, spec: Any) -> ImageViews:
    """Return the views of a part, which can be merged with others; raise `UserError` for other views."""
    views = part.views(spec)
    if not isinstance(views, ImageViews):
        raise UserError(f"{name} makes its own batches, so it cannot be a part of another task")
    return views


def check_source(user: str, name: str, part: Task, source: Source) -> None:
    """Let a part measure the data, and say which of its own training defaults are not those of `user`.

    Raises `UserError` for a part that makes its own samples.
    """
    if part.samples(source) is not source:
        raise UserError(f"{name} makes its own samples, so it cannot be a part of another task")
    if part.defaults:
        own = ", ".join(f"{key} {value}" for key, value in part.defaults.items())
        say(f"{user} trains as it does with any task, not with the defaults of {name} ({own})")


def resolve_pretext(user: type[Task], source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the `pretext` of a task that depend on the data, as its `options`, if there are some."""
    pretext = find_part(given.get("pretext", user.hyperparameters()["pretext"].default))
    options = pretext.resolve(source, given.get("options") or {})
    return {"options": options} if options else {}


def loss_of_part(user: Task, part: Task, batch: Batch) -> Loss:
    """Return the loss of the part, at the progress of its user."""
    part.progress, part.steps = user.progress, user.steps
    return part.loss(batch)


def lr_of_part(user: Task, part: Task, child: str, scheduled: float, peak: float) -> float:
    """Return what the part, at the progress of its user, makes of the learning rate of its own `child`."""
    part.progress, part.steps = user.progress, user.steps
    return part.lr_of(child, scheduled, peak)
