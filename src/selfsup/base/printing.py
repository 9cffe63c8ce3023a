"""How results appear: as text in a terminal, as a table in a notebook."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.jupyter import JupyterMixin
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

WIDTH = 120
WORD = 24  # columns: what is longer, such as a path, goes on in the next line


class Printable(JupyterMixin):
    """A result that is shown as `__rich__` says, by `print` and in a notebook alike."""

    def __rich__(self) -> RenderableType:
        """Return the text or table to show."""
        raise TypeError(f"{type(self).__name__} does not say what it looks like")

    def __repr__(self) -> str:
        """Return the same: a dataclass has `repr=False`, or its numbers would fill the screen."""
        return str(self)

    def __str__(self) -> str:
        console = Console(
            width=WIDTH, color_system=None, legacy_windows=False, markup=False, emoji=False, highlight=False
        )
        shown = self.__rich__()
        with console.capture() as capture:  # lines of text are not wrapped: some are commands, or code to copy
            write(console, shown)
        return capture.get().rstrip()


def fitting(shown: Any) -> Any:
    """Return what is shown with tables that are never cut: see `Wide`."""
    if isinstance(shown, Group):
        return Group(*map(fitting, shown.renderables))
    return Wide(shown) if isinstance(shown, Table) else shown


def write(console: Console, shown: Any) -> None:
    """Print a result: text as it is, tables that fit, and lines of commands whole, however long a path is."""
    console.print(fitting(shown), soft_wrap=isinstance(shown, str), crop=False)


class Indented:
    """A text whose every line begins with the same blanks, however it is wrapped."""

    def __init__(self, text: str, blanks: int = 2) -> None:
        self.text, self.blanks = text, blanks

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        for line in Text(self.text).wrap(console, options.max_width - self.blanks):
            line.rstrip()
            yield Text(" " * self.blanks) + line


class Copied:
    """A command, in lines that a shell takes as they are: one that goes on ends in a backslash."""

    def __init__(self, command: str, blanks: int = 2) -> None:
        self.words, self.blanks = list[str](), blanks
        for word in map(shlex.quote, shlex.split(command)):
            if self.words and self.words[-1].startswith("-") and " " not in self.words[-1] and word[0] != "-":
                self.words[-1] += f" {word}"  # an option stays with its value
            else:
                self.words.append(word)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        lines = [" " * self.blanks + self.words[0]]
        for word in self.words[1:]:
            if len(lines[-1]) + len(word) + len("  \\") > options.max_width:
                lines[-1] += " \\"
                lines.append(" " * (self.blanks + 4) + word)
            else:
                lines[-1] += f" {word}"
        for line in lines:
            yield Text(line, no_wrap=True, overflow="ignore")


class Wide:
    """A table that is printed as several, one below the other, where its columns do not fit side by side.

    Numbers, which are in columns that are justified to the right, are neither cut nor wrapped; words are wrapped. Each
    part repeats the columns up to the first numbers behind words.
    """

    def __init__(self, table: Table) -> None:
        self.table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        columns, free = self.table.columns, options.update(width=1000)
        least = []
        for column in columns:
            sizes = [Measurement.get(console, free, cell) for cell in (column.header, *column.cells)]
            whole = column.justify == "right" or column.no_wrap
            least.append(max(size.maximum if whole else min(size.minimum, WORD) for size in sizes))
            column.min_width, column.overflow = least[-1], "fold"
            column.no_wrap = column.no_wrap or column.justify == "right"
        edge = 0 if self.table.box is None else 1
        room = options.max_width - edge
        costs = [width + edge + (2 if self.table.box else 1) for width in least]
        words = next((place for place, column in enumerate(columns) if column.justify != "right"), 0)
        head = next((i for i in range(words, len(columns)) if columns[i].justify == "right"), len(columns))
        parts: list[list[int]] = [[]]
        for place in range(head, len(columns)):
            if parts[-1] and sum(costs[:head]) + sum(costs[one] for one in [*parts[-1], place]) > room:
                parts.append([])
            parts[-1].append(place)
        for number, part in enumerate(parts):
            yield self.table if len(parts) == 1 else self._part([*range(head), *part], number, len(parts))

    def _part(self, places: list[int], number: int, count: int) -> Table:
        """Return some of the columns, with the title above the first part and the caption below the last one."""
        whole = self.table
        part = Table(
            title=whole.title if number == 0 else None, caption=whole.caption if number == count - 1 else None,
            title_justify=whole.title_justify, box=whole.box, show_header=whole.show_header,
        )  # fmt: skip
        for place in places:
            own = whole.columns[place]
            part.add_column(
                own.header, justify=own.justify, no_wrap=own.no_wrap, min_width=own.min_width, overflow="fold"
            )
        for row, cells in zip(whole.rows, zip(*(whole.columns[i].cells for i in places), strict=True), strict=True):
            part.add_row(*cells, end_section=row.end_section)
        return part
