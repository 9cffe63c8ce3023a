"""From a task's name and what was given to its class, all its hyper-parameters, and the samples that it can use."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from selfsup.errors import UserError, unknown
from selfsup.source import Source
from selfsup.task import Task
from selfsup.tasks import TASKS, find_task
from selfsup.tasks.options import check_ranges


def resolve_task(
    task: str | type[Task], source: Source, given: Mapping[str, Any]
) -> tuple[str, type[Task], dict[str, Any], Source]:
    """Return a task's name and class, all its hyper-parameters, and the samples that it can use.

    A hyper-parameter is what was given, else what `Task.resolve` makes of the data, else the default; of a mapping,
    like the options of a part of the task, each entry is. Raises `UserError` for an option that the task does not have
    or that is out of its range, for data of another kind, and for labels that the task needs and that are not there.
    """
    if not isinstance(task, str) and not (isinstance(task, type) and issubclass(task, Task)):
        raise UserError(f"a task is given by its name or its class, not as {type(task).__name__}")
    name, task_class = (task, find_task(task)) if isinstance(task, str) else (task.__name__, task)
    if not task_class.takes(source.kind):
        other = next((one for one in TASKS if find_task(one).kind == source.kind), "")
        raise UserError(
            f"{name} is for data of the kind {task_class.kind}, and {source.name} is of the kind {source.kind}: give a "
            f"--task of that kind, such as {other} (`selfsup tasks` lists them)"
        )
    known = task_class.hyperparameters()
    for option in given:
        if option not in known:
            raise unknown(f"option of {name}", option, known)
    for key, value in given.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"--{key.replace('_', '-')} must be a finite number, not {value}")
    check_ranges(task_class, given)
    if task_class.needs_labels:
        source = _labelled(name, task_class, source)
    defaults = {key: parameter.default for key, parameter in known.items()}
    found = task_class.resolve(source, given)
    whole = {k: {**found[k], **(v or {})} if isinstance(found.get(k), dict) else v for k, v in given.items()}
    values = defaults | found | whole
    missing = [key for key, value in values.items() if value is inspect.Parameter.empty]
    if missing:
        raise UserError(f"{name} needs --{missing[0].replace('_', '-')}")
    return name, task_class, values, source


def _labelled(name: str, task_class: type[Task], source: Source) -> Source:
    """Return the samples with a label, or all where the task uses those without."""
    labels = source.labels
    if labels is None or not (labels.ids >= 0).any():
        raise UserError(f"{name} needs labels: give --labels folders, a CSV file (path,label) or an .npz file with y")
    labels.check_single()
    if len(labels.classes) < 2:
        raise UserError(f"{name} needs at least two classes; the labels name only {labels.classes[0]!r}")
    if not task_class.uses_unlabelled and (labels.ids < 0).any():
        return source.take(np.flatnonzero(labels.ids >= 0))
    return source
