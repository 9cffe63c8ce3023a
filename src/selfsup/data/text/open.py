"""From a folder of .txt, or a file with one document a line or row, to a source of texts."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from selfsup.data.text import Texts
from selfsup.data.text.sources import stored
from selfsup.errors import UserError, need, unknown
from selfsup.source import Labels

PREFIX = "text:"


def text_files(root: str, paths: pa.Array) -> Texts:
    """Return the .txt files below a folder as documents."""

    def documents() -> Iterator[bytes]:
        for path in paths:
            try:
                with open(os.path.join(os.fsencode(root), path.as_py()), "rb") as file:
                    yield file.read()
            except OSError as error:
                raise UserError(f"cannot read {os.fsdecode(path.as_py())!r}: {error.strerror}") from None

    return stored(documents, root, paths)


def open_text(data: str) -> Texts:
    """Open `text:FILE[:COLUMN[:LABELS]]`: .jsonl, .csv or .parquet by a column (text), else one document a line."""
    path, column, label = (*data.removeprefix(PREFIX).split(":"), "", "")[:3]
    if not os.path.isfile(path):
        raise UserError(f"no such file: {path!r}; text:FILE is .txt (one document a line), .jsonl, .csv or .parquet")
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in _READERS:
        if column:
            raise UserError(f"{path} has one document a line and no columns: leave {column!r} out")
        return stored(lambda: _lines(path), data)
    rows = _READERS[suffix]
    column = column or "text"
    try:
        source = stored(lambda: (_bytes(row, column, path) for row in rows(path, [column])), data)
        if label:
            source.labels = Labels.of(_value(row, label, path) for row in rows(path, [label]))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
    return source


def open_hub(data: str) -> Texts:
    """Open `hf:NAME[:SPLIT[:COLUMN]]`, a data set of the Hugging Face hub."""
    name, split, column = (*data.removeprefix("hf:").split(":"), "", "", "")[:3]
    try:
        found: Any = need("datasets", "hub").load_dataset(name, split=split or "train")
    except UserError:
        raise
    except Exception as error:  # whatever the hub, the network or a script of the data set raises
        raise UserError(
            f"the Hugging Face hub cannot provide {name}: {(str(error) or 'no reason').splitlines()[0]}"
        ) from None
    column = column or "text"
    if column not in found.column_names:
        raise unknown(f"column of {name}", column, found.column_names)
    source = stored(lambda: (str(row[column] or "").encode() for row in found), data)
    if "label" in found.column_names:
        source.labels = Labels.of(found["label"])
    return source


def _lines(path: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        for number, line in enumerate(file):
            yield (line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line).rstrip(b"\r\n")


def _json(path: str, columns: list[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_lines(path), 1):
        if line.strip():
            try:
                row = json.loads(line.decode(errors="replace"))
            except ValueError as error:
                raise UserError(f"{path}: line {number} is not JSON: {error}") from None
            if not isinstance(row, dict):
                raise UserError(f"{path}: line {number} is not an object with columns")
            yield row


def _csv(path: str, columns: list[str]) -> Iterator[dict[str, Any]]:
    parse = pa.csv.ParseOptions(newlines_in_values=True)
    with pa.csv.open_csv(path, parse_options=parse, read_options=pa.csv.ReadOptions(block_size=1 << 24)) as reader:
        _has(columns, reader.schema.names, path)
        for batch in reader:
            yield from batch.select(columns).to_pylist()


def _parquet(path: str, columns: list[str]) -> Iterator[dict[str, Any]]:
    with pa.parquet.ParquetFile(path) as file:
        _has(columns, file.schema_arrow.names, path)
        for batch in file.iter_batches(4096, columns=columns):
            yield from batch.to_pylist()


def _has(columns: list[str], known: list[str], path: str) -> None:
    for column in columns:
        if column not in known:
            raise unknown(f"column of {path}", column, known)


def _value(row: dict[str, Any], column: str, path: str) -> Any:
    if column not in row:
        raise unknown(f"column of {path}", column, row)
    return row[column]


def _bytes(row: dict[str, Any], column: str, path: str) -> bytes:
    value = _value(row, column, path)
    if value is not None and not isinstance(value, str):
        raise UserError(f"{path}: the column {column!r} holds {type(value).__name__}, not text")
    return (value or "").encode(errors="replace")


_READERS: dict[str, Callable[[str, list[str]], Iterator[dict[str, Any]]]] = {
    ".jsonl": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}
