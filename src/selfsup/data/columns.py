"""What a table says of each sample besides a label: columns of names and of numbers."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from selfsup.base.paths import expanded
from selfsup.data.label_tables import PATHS, known_column, sample_paths, whole_column
from selfsup.data.label_values import MISSING
from selfsup.data.paths import find_paths
from selfsup.data.tables import Table, open_table
from selfsup.errors import UserError
from selfsup.source import Labels, Source

COMMA = re.compile(r"[+-]?\d+,\d+")  # a number as most of Europe writes it, in tables whose cells semicolons separate
FEW = 20  # different whole numbers of a column, up to which they are taken for names


@dataclass(frozen=True)
class Column:
    """`values` (N,) float64, nan where they are not known: numbers or, with `names`, the places of these."""

    name: str
    values: NDArray[np.float64]
    names: tuple[str, ...]
    commas: bool = False  # numbers were written with a decimal comma

    def describe(self) -> str:
        """Return what it holds, and of how many samples it is known."""
        known = self.values[np.isfinite(self.values)]
        what = f"{len(self.names):,} names" if self.names else f"numbers from {known.min():g} to {known.max():g}"
        what += " (written with decimal commas)" if self.commas else ""
        return f"{self.name}: {what}, known for {len(known):,} of {len(self.values):,} samples"

    def word(self, value: float) -> str:
        """Return one of the values as it is written."""
        return "unknown" if math.isnan(value) else self.names[int(value)] if self.names else f"{value:.3g}"

    def scaled(self) -> NDArray[np.float64]:
        """Return numbers with mean 0 and variance 1; names are left as they are."""
        return self.values if self.names else (self.values - np.nanmean(self.values)) / np.nanstd(self.values)

    def guessed(self, scores: Sequence[float]) -> str:
        """Return the name with the highest of its scores, or the number that one scaled one means."""
        number = np.nanmean(self.values) + np.nanstd(self.values) * scores[0]
        return self.word(float(np.argmax(scores)) if self.names else float(number))


def digest(columns: Sequence[Column]) -> str:
    """Return a hash of everything that columns hold."""
    hashed = hashlib.blake2b(digest_size=8)
    for one in columns:
        hashed.update(repr((one.name, one.names)).encode() + one.values.tobytes())
    return hashed.hexdigest()


def read_columns(
    source: Source, path: str, wanted: Sequence[str], known: Mapping[str, Sequence[str]] | None = None
) -> tuple[list[Column], list[str]]:
    """Return columns of a CSV file for the samples of a source, by their paths, and what was done to read them.

    A column holds numbers if all of its cells are, with a point or a comma before the decimals, and names otherwise; up
    to 20 different whole numbers are names too.
    `wanted` are the columns' names, to which `:names` or `:numbers` may be added to decide. Samples without a row,
    empty cells and numbers that are not finite are not known. Raises `UserError` for a file that cannot be read, a
    column that is not there or named twice, two rows of a path that disagree, and a column that tells nothing.

    `known`, the names of each column as they were read of all samples, are those of some samples too, whatever these
    have in common; other names are not known.
    """
    name = expanded(path, "--table")
    if not os.path.isfile(name):
        raise UserError(f"no such table: {name!r}; give a CSV file with the columns path,{','.join(wanted)}")
    try:
        table = open_table(name)
        of_paths = known_column(table.first, PATHS)
        if of_paths is None:
            raise UserError(f"{name} has no column of paths: call one of {', '.join(map(repr, table.first[:20]))} path")
        columns = [_kind(table, one) for one in wanted]
        if len({place for place, _ in columns}) < len(columns):
            raise UserError(f"a column of {name} is named twice: {', '.join(wanted)}")
        batches = list(table.batches([of_paths, *(place for place, _ in columns)]))
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        reason = str(error.args[0] if error.args else error).splitlines()[0]
        raise UserError(f"{name} must be a CSV file with the columns path,{','.join(wanted)}: {reason}") from None
    given = whole_column(batches, 0)
    some = pc.not_equal(pc.binary_length(given), 0)
    given, cells = given.filter(some), [whole_column(batches, 1 + i).filter(some) for i in range(len(columns))]
    found, notes = find_paths(sample_paths(source), given, name, source.name, some=True)
    rows = _rows(found, cells, len(source), given, name)
    cells = [one.take(rows) for one in cells]
    read = [
        _column(of, kind, table.first[place], name, known) for of, (place, kind) in zip(cells, columns, strict=True)
    ]
    told = [one.describe() for one in read] if known is None else []
    return read, [f"{name}: {note}" for note in (*table.notes(), *notes, *told)]


def _kind(table: Table, wanted: str) -> tuple[int, str]:
    """Return the place of a column, and `names`, `numbers` or nothing."""
    bare, _, kind = wanted.rpartition(":")
    if wanted not in table.first and bare and kind in ("names", "numbers"):
        return table.column(bare), kind
    return table.column(wanted), ""


def _rows(found: NDArray[np.int64], cells: Sequence[pa.Array], count: int, given: pa.Array, name: str) -> pa.Array:
    """Return the row of each sample, null for none; of those that agree the first one."""
    there = np.flatnonzero(found >= 0)
    first = np.full(count, -1)
    first[found[there][::-1]] = there[::-1]
    same = pa.array(first[found[there]])
    for one in cells:
        differs = pc.not_equal(one.take(same), one.take(pa.array(there)))
        if pc.any(differs).as_py():
            path = os.fsdecode(given.take(pa.array(there)).filter(differs)[0].as_py())
            raise UserError(f"{name} has two rows for {path!r} that differ; keep one row for each path")
    return pa.array(first, mask=first < 0)


def _column(cells: pa.Array, kind: str, name: str, path: str, names: Mapping[str, Sequence[str]] | None) -> Column:
    texts = [None if cell is None else os.fsdecode(cell).strip() for cell in cells.to_pylist()]
    if names is not None:
        places = {text: float(place) for place, text in enumerate(names[name])}
        found = [places.get(text or "", math.nan) if places else _finite(text) for text in texts]
        return Column(name, np.array(found), tuple(names[name]))
    known = [text for text in texts if text is not None and text not in MISSING]
    if not known:
        raise UserError(f"the column {name!r} of {path} tells nothing of any sample")
    words = next((text for text in known if _number(text) is None), None)
    numbers = [number for text in known if (number := _number(text)) is not None]
    if not kind and words is not None and len(numbers) > len(known) / 2:
        raise UserError(
            f"the column {name!r} of {path} holds numbers and {words!r}: write {name}:names or {name}:numbers"
        )
    classes: tuple[str, ...] = ()
    commas = any(COMMA.fullmatch(text) for text in known)
    if not kind:
        whole = len(set(numbers)) <= FEW and all(number.is_integer() for number in numbers)
        kind = "names" if words is not None or whole else "numbers"
    if kind == "numbers":
        values = np.array([_finite(text) for text in texts])
    else:
        labels = Labels.of([None if text in MISSING else text for text in texts])
        values, classes = np.where(labels.ids < 0, math.nan, labels.ids), labels.classes
    finite = values[np.isfinite(values)]
    if not len(finite) or (finite == finite[0]).all():
        raise UserError(f"the column {name!r} of {path} is the same for all samples: leave it out")
    if len(classes) == len(finite):
        raise UserError(f"the column {name!r} of {path} has another name for each sample: leave it out")
    return Column(name, values, classes, commas and not classes)


def _finite(text: str | None) -> float:
    """Return a cell as a number, nan for one that is not finite or no number."""
    number = None if text is None or text in MISSING else _number(text)
    return number if number is not None and math.isfinite(number) else math.nan


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", ".") if COMMA.fullmatch(text) else text)
    except ValueError:
        return None
