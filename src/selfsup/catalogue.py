"""`tasks`: what there is to choose from. Imports torch only when it is called."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from rich.console import Group
from rich.table import Table

from selfsup.printing import Printable
from selfsup.tasks import TASKS, find_task


@dataclass(frozen=True)
class Entry(Printable):
    """One task: its section in the survey, paper, modality, description, and options with their defaults."""

    name: str
    section: str
    paper: str
    modality: str
    text: str
    options: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain values."""
        return dict(self.__dict__)

    def __rich__(self) -> Group:
        table = Table(title=f"options of {self.name}", title_justify="left")
        table.add_column("option")
        table.add_column("default")
        for name, default in self.options.items():
            table.add_row(
                f"--{name.replace('_', '-')}", "required, or from the labels" if default is None else str(default)
            )
        return Group(f"{self.name} · {self.section} · {self.paper or 'no paper'}\n", self.text, "", table)


class Catalogue(Printable, list[Entry]):
    """All tasks, by section."""

    def as_json(self) -> list[dict[str, Any]]:
        """Return the same as plain values."""
        return [entry.as_json() for entry in self]

    def __rich__(self) -> Table:
        table = Table()
        for column in ("section", "task", "what it does", "paper"):
            table.add_column(column)
        for entry in self:
            table.add_row(entry.section, entry.name, entry.text.splitlines()[0], entry.paper)
        return table


def tasks(name: str | None = None, /) -> Catalogue | Entry:
    """List every task, or describe one with its options.

    Args:
        name: A task.
    """
    if name is not None:
        return _entry(name)
    return Catalogue(sorted((_entry(known) for known in TASKS), key=lambda entry: (entry.section, entry.name)))


def _entry(name: str) -> Entry:
    task = find_task(name)
    options = {
        key: None if parameter.default is parameter.empty else parameter.default
        for key, parameter in task.hyperparameters().items()
    }
    return Entry(name, task.section, task.paper, task.modality, inspect.cleandoc(task.__doc__ or ""), options)
