"""Tables of text with a separator: as spreadsheets, databases and pandas write them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv

from selfsup.data.encoding import UTF8, about_encodings, file_encoding
from selfsup.errors import UserError, unknown

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
HEAD = 1 << 16  # characters in which separator and header are looked for
BLOCK = 1 << 24


@dataclass(frozen=True)
class Table:
    """A file whose rows have cells; `first` are the cells of its first row, which may be names of the columns."""

    path: str
    encoding: str
    separator: str
    skip: int  # lines before the first row
    first: tuple[str, ...]
    second: tuple[str, ...]

    def notes(self, unsaid: str = ",") -> list[str]:
        """Return what is unusual about the file; `unsaid` is the separator that its suffix promises."""
        told = [f"cells are separated by {SEPARATORS[self.separator]}"] if self.separator != unsaid else []
        return [*about_encodings({self.encoding: 1}, "file"), *told]

    def column(self, name: str) -> int:
        """Return the place of a column by its name: as written, or without blanks around it and in any case."""
        places = [i for i, cell in enumerate(self.first) if cell == name]
        places = places or [i for i, cell in enumerate(self.first) if plain(cell) == plain(name)]
        if not places:
            raise unknown(f"column of {self.path}", name, [repr(cell)[1:-1] for cell in self.first if cell])
        if len(places) > 1:
            raise UserError(f"{self.path} has {len(places)} columns called {name!r}; rename all but one")
        return places[0]

    def batches(self, columns: Sequence[int], header: bool = True) -> Iterator[Any]:
        """Yield record batches of binary columns, as written: no cell is taken for a number or for missing."""
        names = [f"c{i}" for i in range(len(self.first))]
        wanted = {names[i]: pa.large_binary() for i in columns}
        encoding = {} if self.encoding == UTF8 else {"encoding": self.encoding}
        with pa.csv.open_csv(
            self.path,
            pa.csv.ReadOptions(
                column_names=names, skip_rows=self.skip, skip_rows_after_names=int(header), block_size=BLOCK, **encoding
            ),
            pa.csv.ParseOptions(delimiter=self.separator, newlines_in_values=True),
            pa.csv.ConvertOptions(column_types=wanted, include_columns=list(dict.fromkeys(wanted))),
        ) as reader:
            for batch in reader:
                yield batch.select([names[i] for i in columns])


def open_table(path: str) -> Table:
    """Find the encoding, the separator and the first row of a file. Raises `UserError` for one without rows."""
    encoding = file_encoding(path)
    with open(path, encoding=encoding, errors="replace", newline="") as file:
        head = file.read(HEAD)
    whole, head = len(head) < HEAD, head.removeprefix("\N{BYTE ORDER MARK}")
    named = re.match(r'"?sep=(.)"?\r?\n?', head)  # a line by which Excel names the separator
    skip = 0
    if named and named[1] in SEPARATORS:
        skip, head = 1, head[named.end() :]
    empty = re.match(r"(?:\r\n|\n|\r)*", head)
    skip += len(re.findall(r"\r\n|\n|\r", empty[0])) if empty else 0
    found = {one: _rows(head, one, whole) for one in ([named[1]] if named and named[1] in SEPARATORS else SEPARATORS)}
    if not any(found.values()):
        raise UserError(f"{path} is empty")
    several = {one: rows for one, rows in found.items() if rows and len(rows[0]) > 1}
    even = {one: rows for one, rows in several.items() if len({len(row) for row in rows[:50]}) == 1}
    separator, rows = next(iter((even or several or found).items()))
    return Table(path, encoding, separator, skip, tuple(rows[0]), tuple(rows[1] if len(rows) > 1 else ()))


def plain(name: str) -> str:
    """Return the name of a column as it is compared where it is not written alike."""
    return re.sub(r"[\s_-]+", "", name).casefold()


def _rows(head: str, separator: str, whole: bool) -> list[list[str]]:
    rows: list[list[str]] = []
    try:
        rows.extend(row for row in csv.reader(io.StringIO(head, newline=""), delimiter=separator) if row)
    except csv.Error:  # a cell that is too long, a NUL
        return rows
    return rows if whole or len(rows) == 1 else rows[:-1]
