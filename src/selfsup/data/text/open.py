"""From a folder of .txt, or a file with one document a line or row, to a source of texts."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from selfsup.data.encoding import about_encodings, encoding_of, file_encoding, read_lines, to_utf8
from selfsup.data.index import pack
from selfsup.data.label_values import read_labels
from selfsup.data.tables import open_table
from selfsup.data.text import Texts
from selfsup.data.text.sources import stored
from selfsup.errors import UserError, need, unknown
from selfsup.source import Labels

PREFIX = "text:"
PLAIN = (
    "",
    ".txt",
    ".text",
    ".md",
    ".log",
    ".lst",
)  # suffixes of files with one document a line, of which nothing is said
ASIDE = {  # suffixes of files that are no lines of text, and what to do with them
    "unpack it first": (".gz", ".bz2", ".xz", ".zst", ".zip", ".tgz", ".7z"),
    "give it without text:, as images": (".tar",),
    "save its text as .txt, one document a line": (
        ".html",
        ".htm",
        ".xml",
        ".pdf",
        ".doc",
        ".docx",
        ".odt",
        ".epub",
        ".rtf",
    ),
    "save it as .csv": (".xlsx", ".xls", ".ods"),
    "save it as .parquet or .jsonl": (".arrow", ".feather", ".pkl", ".pickle", ".db", ".sqlite", ".yaml", ".yml"),
}

Rows = Iterator[dict[str, Any]]


def text_files(root: str, paths: pa.Array) -> Texts:
    """Return the .txt files below a folder as documents, each in its own encoding."""
    encodings = Counter[str]()

    def documents() -> Iterator[bytes]:
        encodings.clear()
        for path in paths:
            try:
                with open(os.path.join(os.fsencode(root), path.as_py()), "rb") as file:
                    raw = file.read()
            except OSError as error:
                raise UserError(f"cannot read {os.fsdecode(path.as_py())!r}: {error.strerror}") from None
            encoding = encoding_of([raw])
            encodings[encoding] += 1
            yield to_utf8(raw, encoding)

    return _noted(stored(documents, root, paths), about_encodings(encodings, "files were"))


def names_rows(data: str) -> bool:
    """Tell whether `FILE[:COLUMN[:LABELS]]` names a file of rows, for which `text:` can be left out."""
    found = row_file(data)
    return found is not None and os.path.splitext(found[0])[1].lower() in READERS


def open_text(data: str) -> Texts:
    """Open `text:FILE[:COLUMN[:LABELS]]`: rows of a table by a column (text), else one document a line."""
    found = row_file(data.removeprefix(PREFIX))
    if found is None:
        name = data.removeprefix(PREFIX).split(":")[0]
        if os.path.isdir(name):
            raise UserError(f"{name!r} is a folder: leave text: out, and each .txt below it is a document")
        raise UserError(
            f"no such file: {name!r}; text:FILE is .txt (one document a line), .jsonl, .json, .csv, .tsv or .parquet"
        )
    path, column, label = found
    suffix = os.path.splitext(path)[1].lower()
    try:
        if suffix not in READERS:
            return _open_lines(data, path, suffix, column)
        rows, notes = READERS[suffix](path, [column or "text", *([label] if label else [])])
        source = stored(lambda: (_bytes(row, column or "text", path) for row in rows()), data)
        if label:
            source.labels = _labels(_value(row, label, path) for row in rows())
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
    return _noted(source, notes)


def row_file(data: str) -> tuple[str, str, str] | None:
    """Return file, column and labels of FILE[:COLUMN[:LABELS]]; the file may have colons in its name."""
    parts = data.split(":")
    for more in range(3):
        path = ":".join(parts[: len(parts) - more])
        if len(parts) > more and os.path.isfile(path):
            column, label = (*parts[len(parts) - more :], "", "")[:2]
            return path, column, label
    return None


def _noted(source: Texts, notes: Iterable[str]) -> Texts:
    source.notes = (*source.notes, *(f"{source.name}: {note}" for note in notes))
    return source


def _open_lines(data: str, path: str, suffix: str, column: str) -> Texts:
    todo = next((remedy for remedy, suffixes in ASIDE.items() if suffix in suffixes), None)
    if todo:
        raise UserError(f"{path} is not read as text: {todo}")
    if column:
        raise UserError(f"{path} has one document a line and no columns: leave {column!r} out")
    encoding = file_encoding(path)
    notes = [] if suffix in PLAIN else [f"the suffix {suffix} is not known, and each line is a document"]
    source = stored(lambda: read_lines(path, encoding), data)
    return _noted(source, [*notes, *about_encodings({encoding: 1}, "file was")])


def _labels(values: Iterable[Any]) -> Labels:
    """Return labels, with true and false as JSON writes them."""
    return read_labels([json.dumps(value) if isinstance(value, bool) else value for value in values])


def open_hub(data: str) -> Texts:
    """Open `hf:NAME[:SPLIT[:COLUMN[:LABELS]]]`, a data set of the Hugging Face hub."""
    name, split, column, label = (*data.removeprefix("hf:").split(":"), "", "", "", "")[:4]
    try:
        found: Any = need("datasets", "hub").load_dataset(name, split=split or "train")
    except UserError:
        raise
    except Exception as error:  # whatever the hub, the network or a script of the data set raises
        raise UserError(
            f"the Hugging Face hub cannot provide {name}: {(str(error) or 'no reason').splitlines()[0]}"
        ) from None
    column = column or "text"
    for wanted in (column, label):
        if wanted and wanted not in found.column_names:
            raise unknown(f"column of {name}", wanted, found.column_names)
    source = stored(lambda: (_bytes(row, column, name) for row in found), data)
    if label or "label" in found.column_names:
        source.labels = column_labels(found, label or "label")
    return source


def column_labels(found: Any, column: str) -> Labels:
    """Return the labels in a column of a data set of Hugging Face, by the names of the classes where it has them."""
    names = getattr((getattr(found, "features", None) or {}).get(column), "names", None)
    return _labels(
        names[value] if names and isinstance(value, int) and value >= 0 else value for value in found[column]
    )


def listed_texts(documents: Sequence[Any], name: str) -> Texts:
    """Return documents in memory: a text each or, of a `Path`, the text in that file."""
    if isinstance(documents[0], str):
        return Texts.of([str(text) for text in documents], name=name)
    return text_files("", pack(map(os.fsencode, documents)))


def _json_lines(path: str, columns: list[str]) -> tuple[Callable[[], Rows], list[str]]:
    encoding = file_encoding(path)

    def rows() -> Rows:
        for number, line in enumerate(read_lines(path, encoding), 1):
            if line.strip():
                row = _parsed(line, f"{path}: line {number}")
                if not isinstance(row, dict):
                    remedy = "; a list of objects is read from a .json file" if isinstance(row, list) else ""
                    raise UserError(f"{path}: line {number} is not an object with columns{remedy}")
                yield row

    return rows, about_encodings({encoding: 1}, "file was")


def _json(path: str, columns: list[str]) -> tuple[Callable[[], Rows], list[str]]:
    """Read one list of objects; what begins with an object is read as an object a line."""
    encoding = file_encoding(path)
    with open(path, "rb") as file:
        raw = to_utf8(file.read(), encoding)
    if not raw.lstrip().startswith(b"["):
        try:
            _parsed(next(line for line in raw.splitlines() if line.strip()), path)
        except (UserError, StopIteration):
            raise UserError(f"{path} must hold a list of objects with columns, or one such object a line") from None
        return _json_lines(path, columns)
    found = _parsed(raw, path)
    for number, row in enumerate(found, 1):
        if not isinstance(row, dict):
            raise UserError(f"{path}: entry {number} is not an object with columns")
    return lambda: iter(found), about_encodings({encoding: 1}, "file was")


def _parsed(raw: bytes, where: str) -> Any:
    try:
        return json.loads(raw.decode(errors="replace"), object_pairs_hook=lambda pairs: _single(pairs, where))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON: {error}") from None


def _single(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise UserError(f"{where} has two columns called {twice!r}; rename one")
    return row


def _csv(path: str, columns: list[str]) -> tuple[Callable[[], Rows], list[str]]:
    table = open_table(path)
    places = [table.column(column) for column in columns]

    def rows() -> Rows:
        joined = 0
        for batch in table.batches(places):
            for cells in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                joined += table.separator == "\t" and any(b"\t" in cell and b"\n" in cell for cell in cells)
                yield dict(zip(columns, cells, strict=True))
        told = f"{joined:,} rows have cells with tabs and line breaks, as if a quotation mark before was never closed"
        if joined and told not in notes:
            notes.append(told)

    unlike = [(column, table.first[place]) for column, place in zip(columns, places, strict=True)]
    notes = table.notes("\t" if path.lower().endswith((".tsv", ".tab")) else ",")
    notes += [f"the column {name!r} was read as {column!r}" for column, name in unlike if column != name]
    return rows, notes  # to which reading adds


def _parquet(path: str, columns: list[str]) -> tuple[Callable[[], Rows], list[str]]:
    with pa.parquet.ParquetFile(path) as file:
        known = file.schema_arrow.names
    for column in columns:
        if column not in known:
            raise unknown(f"column of {path}", column, known)
        if known.count(column) > 1:
            raise UserError(f"{path} has {known.count(column)} columns called {column!r}; rename all but one")

    def rows() -> Rows:
        with pa.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(4096, columns=list(dict.fromkeys(columns))):
                yield from batch.to_pylist()

    return rows, []


def _value(row: dict[str, Any], column: str, path: str) -> Any:
    if column not in row:
        raise unknown(f"column of {path}", column, row)
    return row[column]


def _bytes(row: dict[str, Any], column: str, path: str) -> bytes:
    value = _value(row, column, path)
    if isinstance(value, bytes):
        return value
    if value is not None and not isinstance(value, str):
        raise UserError(f"{path}: the column {column!r} holds {type(value).__name__}, not text")
    return (value or "").encode(errors="surrogatepass")  # half a character of JSON is counted as damaged


READERS: dict[str, Callable[[str, list[str]], tuple[Callable[[], Rows], list[str]]]] = {
    ".jsonl": _json_lines, ".ndjson": _json_lines, ".json": _json, ".csv": _csv, ".tsv": _csv, ".tab": _csv,
    ".parquet": _parquet,
}  # fmt: skip
