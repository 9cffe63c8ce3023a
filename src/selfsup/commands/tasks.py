"""`tasks`: what there is to choose from. Imports torch only when it is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from selfsup.tasks.catalogue import Catalogue, Entry


def list_tasks(name: str | None = None, /) -> Catalogue | Entry:
    """List every task, or describe one with its options.

    Args:
        name: A task.
    """
    from selfsup.tasks.catalogue import catalogue, entry

    return catalogue() if name is None else entry(name)


tasks = list_tasks  # the name of the command
