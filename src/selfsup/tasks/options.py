"""The hyper-parameters of a task with what its docstring says about them (`selfsup.base.options`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfsup.base.options import Option, read_options
from selfsup.errors import UserError
from selfsup.task import Task


def options(task: type[Task]) -> dict[str, Option]:
    """Return the default, the sentence and the range of each hyper-parameter of a task."""
    return read_options(task.hyperparameters(), task.__doc__ or "")


def check_ranges(task: type[Task], given: Mapping[str, Any]) -> None:
    """Raise `UserError` for the first number that is not in the range that the docstring states."""
    known = options(task)
    for name, value in given.items():
        interval = known[name].range if name in known else None
        if interval and isinstance(value, int | float) and not interval.holds(value):
            raise UserError(f"--{name.replace('_', '-')} must be in {interval.text}, not {value}")
