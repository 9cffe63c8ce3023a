"""The Parquet file of `embed`, written and read in batches: memory does not grow with the number of rows."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from selfsup.base.paths import user_path
from selfsup.base.writing import whole_file
from selfsup.errors import UserError
from selfsup.source import Source

ROWS = 4096  # read at once
WIDEST = 1 << 16  # numbers of a vector
OPEN = 64  # parts at a time


class VectorFile:
    """Rows of (path, label, vector); `about` holds what `embed` noted: run, task, encoder, data.

    Raises `UserError` for a file that is missing, empty, not Parquet, or without the columns `path` (text) and
    `vector` (lists of float).
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = user_path(path, "a file of embeddings")
        try:
            self.file = pq.ParquetFile(self.path, pre_buffer=False)
            schema: Any = self.file.schema_arrow
        except FileNotFoundError:
            raise UserError(f"no such file: {path}; `selfsup embed` writes one") from None
        except (pa.ArrowException, OSError, UnicodeError) as error:
            raise UserError(f"{path} is not a Parquet file: {str(error).splitlines()[0]}") from None
        columns = {field.name: field.type for field in schema}
        if not (_is_text(columns.get("path")) and _is_vector(columns.get("vector"))):
            raise UserError(
                f"{path} was not written by `selfsup embed`: it needs the columns path (text) and vector (lists of "
                f"float); it has {', '.join(columns) or 'none'}"
            )
        self.has_labels = _is_text(columns.get("label"))
        self.about = {key.decode(errors="replace"): text.decode(errors="replace") for key, text in _metadata(schema)}
        if len(self) == 0:
            raise UserError(f"{path} holds no rows")
        self._check_size()
        about = self.file.metadata
        self._starts = np.cumsum([0, *(about.row_group(group).num_rows for group in range(about.num_row_groups))])
        self.dim = next(self.vectors())[1].shape[1]

    def __len__(self) -> int:
        return int(self.file.metadata.num_rows)

    def _check_size(self) -> None:
        """Raise `UserError` for more rows or numbers than a file of this size can reasonably hold."""
        size, numbers = self.path.stat().st_size, in_a_copy(self._numbers)
        if numbers is None:
            raise UserError(f"{self.path} is damaged: the description of its columns cannot be read")
        if len(self) > size or not 0 <= numbers <= len(self) * WIDEST:
            raise UserError(f"{self.path} declares {len(self):,} rows of {numbers:,} numbers in {size:,} bytes")

    def _numbers(self) -> int:
        about = self.file.metadata
        groups = (about.row_group(group) for group in range(about.num_row_groups))
        columns = (group.column(i) for group in groups for i in range(about.num_columns))
        return sum(column.num_values for column in columns if column.path_in_schema.startswith("vector"))

    def vectors(self, rows: NDArray[np.int64] | None = None) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield the number of the first row and the vectors (b, dim) float32 of each batch, or of those with `rows`.

        Raises `UserError` for vectors that are missing, of different lengths, or not finite.
        """
        for start, batch in self._batches(["vector"], rows):
            column = batch.column(0)
            numbers = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
            dim = getattr(self, "dim", None) or len(numbers) // len(column)
            lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
            if column.null_count or not (lengths == dim).all() or dim == 0:
                raise UserError(f"{self.path}: the vectors are missing or not all of one length; embed again")
            x = numbers.reshape(-1, dim)
            finite = np.isfinite(x).all(1)
            if not finite.all():
                row = start + int(np.argmin(finite))
                raise UserError(
                    f"{self.path}: the vector of row {row} holds NaN or infinity; the encoder may have diverged"
                )
            yield start, x

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors (n, dim) of some rows, which are in ascending order."""
        wanted = np.asarray(rows, np.int64)
        return np.concatenate([x[_within(wanted, start, len(x)) - start] for start, x in self.vectors(wanted)])

    def names(self, rows: Sequence[int] | NDArray[np.int64]) -> list[tuple[str, str | None]]:
        """Return the paths and labels (None: no label) of some rows, in the given order."""
        order = np.unique(np.asarray(rows, np.int64))
        found: dict[int, tuple[str, str | None]] = {}
        for start, batch in self._batches(["path", "label"] if self.has_labels else ["path"], order):
            inside = _within(order, start, len(batch))
            few = batch.take(pa.array(inside - start))
            labels = few.column(1).to_pylist() if self.has_labels else [None] * len(few)
            for row, path, label in zip(inside, few.column(0).to_pylist(), labels, strict=True):
                found[int(row)] = (path or "", label)
        return [found[int(row)] for row in rows]

    def find(self, path: str) -> int | None:
        """Return the first row of a path, or None."""
        for start, batch in self._batches(["path"]):
            place = pc.index(batch.column(0).cast(pa.string()), path).as_py()
            if place >= 0:
                return start + int(place)
        return None

    def _batches(self, columns: list[str], rows: NDArray[np.int64] | None = None) -> Iterator[tuple[int, Any]]:
        """Yield the first row and the columns of each batch: of all, or of the groups that hold ascending `rows`."""
        if self._starts[-1] != len(self):
            raise UserError(f"{self.path} is damaged: {self._starts[-1]:,} of its {len(self):,} rows are there")
        runs = [(0, None)] if rows is None else [(int(self._starts[g]), [g]) for g in self._groups(rows)]
        start = 0
        try:
            for start, groups in runs:
                for batch in self.file.iter_batches(ROWS, columns=columns, row_groups=groups):
                    yield start, batch.select(columns)
                    start += len(batch)
        except (pa.ArrowException, OSError, UnicodeError) as error:
            raise UserError(f"{self.path} is damaged: {str(error).splitlines()[0]}") from None
        if rows is None and start != len(self):
            raise UserError(f"{self.path} is damaged: {start:,} of its {len(self):,} rows are there")

    def _groups(self, rows: NDArray[np.int64]) -> list[int]:
        return np.unique(np.searchsorted(self._starts, rows, side="right") - 1).tolist()


def write_vectors(
    path: Path,
    source: Source,
    dim: int,
    batches: Iterable[tuple[NDArray[np.int64], NDArray[np.float32]]],
    about: Mapping[str, str],
    done: Callable[[int], None] = lambda _: None,
    several: bool = False,
) -> int:
    """Write the vectors of samples, from batches of their numbers (b,) and vectors (b, dim); return how many.

    `done` is called with the number of rows of each batch. `several` processes may write the same file at once.

    The file is written aside and renamed when it is complete. Raises `RunFailed` if it cannot be written.
    """
    labels, schema = source.labels, _schema(dim, about)

    def written() -> Iterator[Any]:
        for numbers, x in batches:
            ids = labels.ids[numbers] if labels is not None else [-1] * len(numbers)
            columns = [
                pa.array([os.fsencode(source.path(int(i))).decode(errors="backslashreplace") for i in numbers]),
                pa.array([labels.classes[i] if labels and i >= 0 else None for i in ids], pa.string()),
                pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), dim),
            ]
            yield pa.record_batch(columns, schema=schema)
            done(len(numbers))

    return _write(path, schema, written(), several)


def unite_vectors(
    path: Path, parts: Sequence[Path], dim: int, about: Mapping[str, str], done: Callable[[int], None] = lambda _: None
) -> int:
    """Write the rows of several files into one, in their order: the bytes of `write_vectors` for all of them at once.

    Return how many. Raises `UserError` for a damaged part, `RunFailed` if the file cannot be written.
    """
    schema = _schema(dim, about)

    def written() -> Iterator[Any]:
        for part in parts:
            try:
                for batch in pq.ParquetFile(part, pre_buffer=False).iter_batches(ROWS):
                    yield pa.record_batch(batch.columns, schema=schema)
                    done(len(batch))
            except (pa.ArrowException, OSError, ValueError) as error:
                raise UserError(f"{part} is damaged, remove it: {str(error).splitlines()[0]}") from None

    return _write(path, schema, written())


def _schema(dim: int, about: Mapping[str, str]) -> Any:
    schema = pa.schema([("path", pa.string()), ("label", pa.string()), ("vector", pa.list_(pa.float32(), dim))])
    return schema.with_metadata({key: os.fsencode(text) for key, text in about.items()})


def _write(path: Path, schema: Any, batches: Iterable[Any], several: bool = False) -> int:
    """Write batches in row groups of `ROWS`, whatever their lengths; return the number of rows."""
    rows, waiting = 0, pa.Table.from_batches([], schema=schema)
    with whole_file(path, several) as file, pq.ParquetWriter(file, schema) as writer:
        for batch in batches:
            rows += len(batch)
            waiting = pa.concat_tables([waiting, pa.Table.from_batches([batch])])
            while len(waiting) >= ROWS:
                writer.write_table(waiting[:ROWS].combine_chunks())
                waiting = waiting[ROWS:]
        if len(waiting):
            writer.write_table(waiting.combine_chunks())
    return rows


class Vectors:
    """The rows of a file of embeddings, or of all `*.parquet` parts in a folder, in the order of their names.

    Row numbers count through the parts. `about` is what `embed` noted in the first part. Raises `UserError` as
    `VectorFile` does, for a folder without parts, and for parts whose vectors have different lengths.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = user_path(path, "embeddings")
        self.files = tuple(sorted(self.path.glob("[!.]*.parquet"))) if self.path.is_dir() else (self.path,)
        if not self.files:
            raise UserError(f"{path} holds no .parquet files; `selfsup embed` writes them")
        self._open: dict[int, VectorFile] = {}
        counts: list[int] = []
        for number, file in enumerate(self.files):
            part = self.part(number)
            if not counts:
                self.dim, self.about, self.has_labels = part.dim, part.about, part.has_labels
            if part.dim != self.dim:
                raise UserError(
                    f"{file} holds vectors of {part.dim} numbers, {self.files[0]} of {self.dim}: parts of one set of "
                    "embeddings come from one encoder"
                )
            counts.append(len(part))
        self.starts = np.cumsum([0, *counts])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def part(self, number: int) -> VectorFile:
        """Return an open part; a few stay open, for there may be more than a process may open."""
        if number not in self._open:
            if len(self._open) == OPEN:
                del self._open[next(iter(self._open))]
            self._open[number] = VectorFile(self.files[number])
        return self._open[number]

    def vectors(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield the number of the first row and the vectors (b, dim) float32 of each batch."""
        for number, first in enumerate(self.starts[:-1].tolist()):
            for start, x in self.part(number).vectors():
                yield first + start, x

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors (n, dim) of some rows, which are in ascending order."""
        found = [self.part(part).take(inside) for part, inside, _ in self._by_part(np.asarray(rows, np.int64))]
        return np.concatenate([np.empty((0, self.dim), np.float32), *found])

    def names(self, rows: Sequence[int] | NDArray[np.int64]) -> list[tuple[str, str | None]]:
        """Return the paths and labels (None: no label) of some rows, in the given order."""
        wanted = np.asarray(rows, np.int64)
        found: list[tuple[str, str | None]] = [("", None)] * len(wanted)
        for part, inside, places in self._by_part(wanted):
            for place, name in zip(places.tolist(), self.part(part).names(inside), strict=True):
                found[place] = name
        return found

    def find(self, path: str) -> int | None:
        """Return the first row of a path, or None."""
        for number, first in enumerate(self.starts[:-1].tolist()):
            if (row := self.part(number).find(path)) is not None:
                return first + row
        return None

    def _by_part(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
        """Yield each part that holds some rows, their numbers in it, and their places among `rows`."""
        owner = np.searchsorted(self.starts, rows, side="right") - 1
        for part in np.unique(owner).tolist():
            places = np.flatnonzero(owner == part)
            yield part, rows[places] - self.starts[part], places


def in_a_copy(work: Callable[[], int]) -> int | None:
    """Return the result of `work` in a copy of this process, or None if it fails or ends the process.

    Arrow aborts on some damaged descriptions of a column. Where processes cannot be copied, the work is done here.
    """
    if not hasattr(os, "fork"):
        return work()
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of other threads, on which the work does not wait
        copy = os.fork()
    if copy == 0:
        with contextlib.suppress(Exception):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            os.write(writer, str(work()).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as file:
        told = file.read()
    os.waitpid(copy, 0)
    return int(told) if told else None


def _within(rows: NDArray[np.int64], start: int, count: int) -> NDArray[np.int64]:
    low, high = np.searchsorted(rows, (start, start + count))
    return rows[low:high]


def _metadata(schema: Any) -> list[tuple[bytes, bytes]]:
    return [(key, text) for key, text in (schema.metadata or {}).items() if key != b"ARROW:schema"]


def _is_text(column: Any) -> bool:
    return column is not None and (pa.types.is_string(column) or pa.types.is_large_string(column))


def _is_vector(column: Any) -> bool:
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return column is not None and any(is_list(column) for is_list in lists) and pa.types.is_floating(column.value_type)
