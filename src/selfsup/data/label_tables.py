"""Labels from a table: which of its columns are the paths and the labels, and which sample each row is of."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from numpy.typing import NDArray

from selfsup.data.image import Files
from selfsup.data.index import pack
from selfsup.data.label_values import is_list, packed, read_labels
from selfsup.data.paths import find_paths
from selfsup.data.tables import Table, open_table, plain
from selfsup.data.video import Videos
from selfsup.errors import UserError
from selfsup.source import Labels, Source

PATHS = ("path", "file", "file name", "file path", "image", "image path", "image name", "img", "name", "document", "id")
LABELS = ("label", "labels", "class", "class name", "category", "species", "target", "tag", "y")


def split_columns(labels: str, known: Sequence[str] = ("path", "label")) -> tuple[str, dict[str, str]]:
    """Return a label file, and what was named of the `known` columns: FILE:path=COLUMN,label=COLUMN."""
    name, _, given = labels.rpartition(":")
    if labels == "folders" or os.path.exists(labels) or "=" not in given:
        return labels, {}
    pairs = dict(pair.split("=", 1) for pair in given.split(",") if "=" in pair)
    if given.count(",") + 1 != len(pairs) or not pairs.keys() <= set(known):
        raise UserError(f"--columns takes {','.join(f'{one}=COLUMN' for one in known)}, not {given!r}")
    return name, pairs


def table_labels(source: Source, path: str, form: str, columns: Mapping[str, str]) -> tuple[Labels, list[str]]:
    """Return labels from a table of paths and labels, and what was done to read it."""
    try:
        if form == "parquet":
            return _parquet_labels(source, path, columns)
        table = open_table(path)
        path_column, label_column, header, notes = _choose(source, table, columns)
        batches = list(table.batches([path_column, label_column], header))
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        reason = str(error.args[0] if error.args else error).splitlines()[0]
        raise UserError(f"{path} must be a CSV file with the columns path,label: {reason}") from None
    given, label = (whole_column(batches, place) for place in (0, 1))
    some = pc.or_(pc.not_equal(pc.binary_length(given), 0), pc.not_equal(pc.binary_length(label), 0))
    found, more = by_path(source, path, given.filter(some), label.filter(some))
    return found, [*table.notes("\t" if path.lower().endswith(".tsv") else ","), *notes, *more]


def _parquet_labels(source: Source, path: str, columns: Mapping[str, str]) -> tuple[Labels, list[str]]:
    with pa.parquet.ParquetFile(path) as file:
        names = file.schema_arrow.names
        head = next(file.iter_batches(1), None)
        second = [] if head is None else [_cell(column[0].as_py()) for column in head.columns]
        path_column, label_column, _, notes = _choose(
            source, Table(path, "utf-8", ",", 0, tuple(names), tuple(second)), columns, named=True
        )
        rows = file.read([names[path_column], names[label_column]])
    found, label = rows[names[path_column]].to_pylist(), rows[names[label_column]].to_pylist()
    given = [(one, value) for one, value in zip(found, label, strict=True) if one is not None or value is not None]
    labels, more = by_path(source, path, packed(one or "" for one, _ in given), [value for _, value in given])
    return labels, [*notes, *more]


def _cell(value: Any) -> str:
    return os.fsdecode(value) if isinstance(value, str | bytes) else ""


def _choose(
    source: Source, table: Table, columns: Mapping[str, str], named: bool = False
) -> tuple[int, int, bool, list[str]]:
    """Return the places of the columns of paths and labels, whether there is a header, and what was decided.

    `named`: the first row is certainly one.
    """
    first, second = table.first, table.second
    place = {what: numbered_column(table, name) for what, name in columns.items()}
    numbered = bool(columns) and all(plain(name) not in map(plain, first) for name in columns.values())
    header = named or not numbered or not any(_has(source, cell) for cell in first)
    place |= {what: known for what, names in (("path", PATHS), ("label", LABELS)) if what not in place
              and (known := known_column(first, names)) is not None and header}  # fmt: skip
    if "path" not in place and not named and any(_has(source, cell) for cell in first):
        header, place = False, {"path": next(i for i, cell in enumerate(first) if _has(source, cell))}
    elif "path" not in place:
        place |= {"path": i for i in range(min(map(len, (first, second)))) if _has(source, second[i])}  # noqa: B035
    if "label" not in place and len(first) == 2 and "path" in place:
        place["label"] = 1 - place["path"]
    for what, names in (("path", PATHS), ("label", LABELS)):
        if what not in place:
            twice = [cell for cell in first if plain(cell) == plain(names[0])]
            if len(twice) > 1:
                raise UserError(f"{table.path} has {len(twice)} columns called {twice[0]!r}; rename all but one")
            if len(first) == 1:
                raise UserError(
                    f"{table.path} must be a CSV file with the columns path,label, and has only one, {first[0]!r}; "
                    "cells are separated by commas, semicolons, tabs or bars"
                )
            columns_are = ", ".join(repr(cell) for cell in first[:20])
            raise UserError(
                f"{table.path} must be a CSV file with the columns path,label, and none of its columns "
                f"({columns_are}) is known as the {what}: name them with --columns path=COLUMN,label=COLUMN"
                + ("" if header else ", by number where they have no names, such as path=1,label=3")
            )
    if not header:
        said = f"it has no header: column {place['path'] + 1} was read as path and {place['label'] + 1} as label"
    elif columns or (first[place["path"]], first[place["label"]]) == ("path", "label"):
        said = ""
    else:
        said = f"the column {first[place['path']]!r} was read as path and {first[place['label']]!r} as label"
    return place["path"], place["label"], header, [said] if said else []


def numbered_column(table: Table, name: str) -> int:
    """Return the place of a column by its name or, where no column is called so, by its number from 1."""
    known = any(plain(cell) == plain(name) for cell in table.first)
    if not known and name.isdecimal() and 0 < int(name) <= len(table.first):
        return int(name) - 1
    return table.column(name)


def known_column(cells: tuple[str, ...], names: tuple[str, ...]) -> int | None:
    """Return the place of the only column that has one of these names; that of the first name is preferred."""
    written = [plain(cell) for cell in cells]
    if written.count(names[0]) == 1:
        return written.index(names[0])
    places = [i for i, cell in enumerate(written) if cell in map(plain, names)]
    return places[0] if len(places) == 1 else None


def _has(source: Source, cell: str) -> bool:
    """Tell whether a cell is the path of a sample."""
    try:
        find_paths(_known_paths(source), pa.array([os.fsencode(cell)], pa.large_binary()), "", source.name)
    except UserError:
        return False
    return True


def by_path(source: Source, name: str, given: pa.Array, values: pa.Array | list[Any]) -> tuple[Labels, list[str]]:
    """Return the labels of samples by their paths, and how paths were matched."""
    several = isinstance(values, list) and any(map(is_list, values))
    label = packed(values) if isinstance(values, list) else values
    known = _known_paths(source)
    place, notes = find_paths(known, given, name, source.name)
    last = np.full(len(known), -1)
    last[place[::-1]] = np.arange(len(place))[::-1]  # the first row of each sample
    differs = pc.not_equal(label.take(pa.array(last[place])).fill_null(b""), label.fill_null(b""))
    if pc.any(differs).as_py():
        some = os.fsdecode(given.filter(differs)[0].as_py())
        raise UserError(f"{name} gives {some!r} two different labels; keep one row for each path")
    owners = getattr(source, "owners", None)
    if owners is not None:
        last, of_files = last[: len(source)], last[_files_of(source, known)]
        if ((last < 0) & (of_files >= 0)).any():
            parts = "windows" if source.kind == "video" else "pages"
            notes = [*notes, f"the label of a file is that of all its {parts}"]
        last = np.where(last < 0, of_files, last)
    return read_labels(label.take(pa.array(last, mask=last < 0)), several=several), notes


def sample_paths(source: Source) -> pa.Array:
    """Return the paths of all samples, as Arrow binary."""
    if isinstance(source, Files) and not source.all_pages:
        return source.paths
    return pack(os.fsencode(source.path(i)) for i in range(len(source)))


def _known_paths(source: Source) -> pa.Array:
    """Return the paths that a table may name: those of the samples, and of the videos that several of them are of."""
    paths = sample_paths(source)
    if isinstance(source, Videos) and source.owners is not None:
        videos = sample_paths(source.whole())
        paths = pa.concat_arrays([paths, videos.filter(pc.invert(pc.is_in(videos, value_set=paths)))])
    return paths


def _files_of(source: Any, known: pa.Array) -> NDArray[np.int64]:
    """Return the place among the known paths (N,) of that of each sample's whole file."""
    if isinstance(source, Videos):
        return pc.index_in(source.paths, value_set=known).to_numpy().astype(np.int64)
    return np.unique(source.owners, return_index=True)[1][source.owners]  # the first page has the path of the file


def matched_files(names: Sequence[bytes], name: str, source: Source, what: str) -> NDArray[np.int64]:
    """Return the sample that each file `what` below a folder is of, by its path without the suffix.

    Raises `UserError` for a file of no sample or of several, and for several of one.
    """
    stems = [os.path.splitext(path)[0] for path in sample_paths(source).to_pylist()]
    given = pack(os.path.splitext(one)[0] for one in names)
    owners, _ = find_paths(pack(stems), given, name, source.name)
    same = Counter(stems)
    for owner in owners.tolist():
        if same[stems[owner]] > 1:
            one, other = (source.path(i) for i in np.flatnonzero([stem == stems[owner] for stem in stems])[:2].tolist())
            raise UserError(f"{name}: a {what} may be that of {one!r} or of {other!r}; leave one of them out")
    counts = np.bincount(owners)
    if counts.max() > 1:
        path = source.path(int(counts.argmax()))
        raise UserError(f"{name} has {counts.max()} {what}s for {path!r}; keep one")
    return owners


def whole_column(batches: list[Any], place: int) -> pa.Array:
    """Return a column of the batches of a table as one array of binary."""
    return pa.concat_arrays([pa.array([], pa.large_binary()), *(batch.column(place) for batch in batches)])
