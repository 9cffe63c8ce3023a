"""The registry: every task by name. Literal, so that it can be read, and searched, without running anything."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

from selfsup.errors import UserError, unknown

if TYPE_CHECKING:
    from selfsup.task import Task

TASKS: dict[str, str] = {
    "rotation": "selfsup.tasks.image.rotation:Rotation",
    "s4l": "selfsup.tasks.semi.s4l:S4L",
    "supervised": "selfsup.tasks.supervised:Supervised",
}


def find_task(name: str) -> type[Task]:
    """Return the class of a task, by its name in the registry or as `module:Class` for one of your own.

    Raises `UserError` for a name that is neither, with the nearest known name.
    """
    if name not in TASKS and ":" not in name:
        raise unknown("task", name, TASKS)
    module, _, attribute = TASKS.get(name, name).partition(":")
    if name not in TASKS and "" not in sys.path:
        sys.path.insert(0, "")  # a task of your own lies in the current folder
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"cannot load the task {name!r}: {error}") from error
    task: type[Task] = found
    return task
