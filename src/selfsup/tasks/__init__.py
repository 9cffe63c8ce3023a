"""The registry: every task by name. Literal, so that it can be read, and searched, without running anything."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from selfsup.errors import UserError, unknown

if TYPE_CHECKING:
    from selfsup.task import Task

TASKS: dict[str, str] = {
    "rotation": "selfsup.tasks.image.rotation:Rotation",
    "supervised": "selfsup.tasks.supervised:Supervised",
}


def find_task(name: str) -> type[Task]:
    """Return the class of a task, by its name in the registry or as `module:Class` for one of your own.

    Raises `UserError` for a name that is neither, with the nearest known name.
    """
    if name not in TASKS and ":" not in name:
        raise unknown("task", name, TASKS)
    module, _, attribute = TASKS.get(name, name).partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise UserError(f"cannot load the task {name!r}: {error}") from error
    from selfsup.task import Task

    if not (isinstance(found, type) and issubclass(found, Task)):
        raise UserError(f"cannot load the task {name!r}: it is no subclass of selfsup.task.Task")
    return found
