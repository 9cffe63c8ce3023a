"""Labels: from the names of folders, a table, an array or Python values. The rule by which all are read stands here.

A label is text, as it is written: 001 is not 1. Whole numbers are written without a fraction (1.0 of an array or of
Parquet is 1), blanks around a label are left out, and Unicode is composed (NFC). `MISSING` are the words that mean no
label, -1 among them; NaN, None and samples that a table does not list have none either. Names of folders are classes
whatever they are, but for blanks around them. A list is several labels, a|b|c, which only `--target multi` takes.
"""

from __future__ import annotations

import copy
import os
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
from numpy.typing import NDArray

from selfsup.base.paths import expanded
from selfsup.data.image import Files
from selfsup.data.index import pack
from selfsup.data.npz import npz_names, read_npy, read_npz
from selfsup.data.paths import find_paths
from selfsup.data.tables import Table, open_table, plain
from selfsup.data.video import Videos
from selfsup.errors import UserError
from selfsup.source import Labels, Source

if TYPE_CHECKING:
    LabelsGiven = str | os.PathLike[str] | Labels | Iterable[Any]
else:
    LabelsGiven = str  # what the command line can give

MISSING = frozenset(
    {"", "-1", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "null", "None"}
)  # -1, and what pandas takes for missing
PATHS = ("path", "file", "file name", "file path", "image", "image path", "image name", "img", "name", "document", "id")
LABELS = ("label", "labels", "class", "class name", "category", "species", "target", "tag", "y")
MARKS = {  # how files begin
    b"PK": "npz", b"\x93NUMPY": "npy", b"PAR1": "parquet", b"\x1f\x8b": "compressed", b"\x80": "a pickle",
    b"\xd0\xcf\x11\xe0": "a spreadsheet", b"SQLite": "a database",
}  # fmt: skip
PARTS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing", "dev", "eval", "holdout"})
SEVERAL = "|"
HELP = "'folders', a CSV file (path,label), a Parquet file or an .npz file with y"


def with_labels(source: Source, labels: LabelsGiven) -> Source:
    """Return the source with other labels; what was done to read them is in its `notes`.

    Args:
        source: Any source.
        labels: `folders` (the first folder below the root, or in a list file of its relative paths, names the class);
            a table with the columns path and label (paths as `source.path` returns them; samples that are not listed
            have none), .csv, .tsv or .parquet, to which `:path=COLUMN,label=COLUMN` may be added; an `.npz` file with
            y, one a sample; or in Python an array, list or Series of these, a mapping from paths, or `Labels`.

    Raises:
        UserError: For labels of unknown paths, rows that disagree, another number of labels, or no label at all.
    """
    notes: list[str] = []
    if isinstance(labels, str | os.PathLike):
        name, columns = split_columns(expanded(labels, "--labels"))
        if name == "folders":
            found = _folder_labels(source)
        elif not os.path.isfile(name):
            raise UserError(f"no label file {name!r}; give {HELP}")
        elif (kind := _kind_of(name)) in ("npz", "npy"):
            found, notes = _array_file(source, name, kind)
        else:
            found, notes = _table_labels(source, name, kind, columns)
    else:
        name = "labels"
        found, notes = _given_labels(source, labels)
    if not found.classes:
        raise UserError(f"{name} gives no label to any sample of {source.name}" + _because(found))
    labelled: Any = copy.copy(source)
    labelled.labels = found
    labelled.notes = (*getattr(source, "notes", ()), *(f"{name}: {note}" for note in (*notes, *found.notes)))
    return labelled


def name_columns(columns: str | None, *labels: Any) -> tuple[Any, ...]:
    """Return labels, label files among them with the names of their columns: path=COLUMN,label=COLUMN.

    Raises `UserError` if there are names, and no label file.
    """
    if columns is None:
        return labels
    files = [isinstance(one, str | os.PathLike) and os.fspath(one) != "folders" for one in labels]
    if not any(files):
        raise UserError("--columns names the columns of a label file: give --labels FILE.csv")
    return tuple(f"{os.fspath(one)}:{columns}" if named else one for one, named in zip(labels, files, strict=True))


def noted_labels(labels: Any, read: Labels | None = None) -> str | None:
    """Return labels as a recipe notes them: those that were given as Python values by a hash of what was `read`."""
    if labels is None or isinstance(labels, str | os.PathLike):
        return None if labels is None else os.fspath(labels)
    return None if read is None else f"given in Python, {read.digest().hex()}"


def read_labels(
    values: Iterable[object] | pa.Array, missing: Collection[str] = MISSING, several: bool = False
) -> Labels:
    """Return labels from one value a sample, by the rule of this module. Raises `UserError` for what is no label.

    Arrays of Arrow hold text, in which `several` labels may be joined already.
    """
    if not isinstance(values, pa.Array):
        values = list(values)
        several = any(_is_list(value) for value in values)
        values = pa.array(
            [None if (text := _written(v)) is None else os.fsencode(text) for v in values], "large_binary"
        )
    encoded = values.dictionary_encode()
    counts = np.bincount(encoded.indices.drop_null().to_numpy(), minlength=len(encoded.dictionary)).tolist()
    names: list[bytes | None] = []
    blanks, none, example = 0, Counter[str](), ""
    for raw, count in zip(encoded.dictionary.to_pylist(), counts, strict=True):
        text = os.fsdecode(raw)
        name = text.strip()
        if name != text and name not in missing:
            blanks, example = blanks + count, example or text
        if name in missing:
            none[name or "empty"] += count
        names.append(None if name in missing else os.fsencode(unicodedata.normalize("NFC", name)))
    if len(encoded) - sum(counts):
        none["not given"] = len(encoded) - sum(counts)
    found = Labels.of(pa.array([*names, None], pa.large_binary()).take(encoded.indices))
    notes = []
    if blanks:
        notes.append(f"blanks around {blanks:,} labels were left out, for example around {example!r}")
    if without := sum(none.values()):
        words = ", ".join(f"{word} {count:,}" for word, count in none.most_common())
        why = "" if list(none) == ["not given"] else f" ({words})"
        notes.append(f"{without:,} of {len(encoded):,} samples have no label{why}")
    folded = Counter(name.casefold() for name in found.classes)
    if alike := [name for name in found.classes if folded[name.casefold()] > 1]:
        notes.append(f"{len(alike)} classes differ only in upper and lower case: {', '.join(map(repr, alike[:6]))}")
    if several:
        notes.append("samples have several labels, written a|b|c, which --target multi takes")
    return replace(found, several=several, notes=tuple(notes))


def array_labels(name: str, y: NDArray[Any]) -> Labels:
    """Return labels from an array of numbers or names, one a sample; `UserError` for others.

    Fractions are what `--target numeric` predicts; it is said that otherwise each value is a class.
    """
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or y.dtype.kind not in "biufSU":
        raise UserError(f"{name}: y must hold one number or name a sample, not {y.dtype} {y.shape}")
    if y.dtype.kind == "f" and np.isinf(y).any():
        raise UserError(f"{name}: y holds infinity; labels are numbers or names")
    try:
        found = read_labels(y.tolist())
    except (SystemError, ValueError):  # numbers that are no characters
        raise UserError(f"{name}: y is damaged, its names are no text") from None
    if y.dtype.kind == "f" and (y[np.isfinite(y)] % 1 != 0).any():
        told = "the labels are fractions: each value is a class, except with --target numeric"
        return replace(found, notes=(*found.notes, told))
    return found


def split_columns(labels: str, known: Sequence[str] = ("path", "label")) -> tuple[str, dict[str, str]]:
    """Return a label file, and what was named of the `known` columns: FILE:path=COLUMN,label=COLUMN."""
    name, _, given = labels.rpartition(":")
    if labels == "folders" or os.path.exists(labels) or "=" not in given:
        return labels, {}
    pairs = dict(pair.split("=", 1) for pair in given.split(",") if "=" in pair)
    if given.count(",") + 1 != len(pairs) or not pairs.keys() <= set(known):
        raise UserError(f"--columns takes {','.join(f'{one}=COLUMN' for one in known)}, not {given!r}")
    return name, pairs


def _because(labels: Labels) -> str:
    return f" ({labels.notes[0]})" if labels.notes and len(labels.ids) else ""


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple | set | frozenset) or (isinstance(value, np.ndarray) and value.ndim > 0)


def _written(value: Any) -> str | None:
    """Return a value as text; None for a missing one."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return os.fsdecode(value)
    if _is_list(value):
        texts = [text.strip() for one in value if (text := _written(one)) is not None]
        if any(SEVERAL in text for text in texts):
            raise UserError(f"a list of labels holds {texts!r}, with the {SEVERAL!r} that separates several labels")
        return SEVERAL.join(dict.fromkeys(text for text in texts if text not in MISSING))
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, float | np.floating):
        if value != value:
            return None
        if abs(value) == float("inf"):
            raise UserError("a label is infinity; labels are names or numbers")
        return str(int(value)) if value == int(value) else str(float(value))
    if isinstance(value, Mapping) or hasattr(value, "__array__"):
        raise UserError(f"a label is text, a whole number or a list of these, not {type(value).__name__}")
    return str(value)  # dates, decimals, identifiers


def _kind_of(path: str) -> str:
    """Return npz, npy, parquet or table by what a label file begins with; `UserError` for what is none of these."""
    with open(path, "rb") as file:
        head = file.read(16)
    found = next((kind for mark, kind in MARKS.items() if head.startswith(mark)), "table")
    if found == "npz" and path.lower().endswith((".xlsx", ".ods", ".zip")):
        found = "a spreadsheet or an archive"
    if found == "table" and head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith((b"[", b"{")):
        found = "JSON"
    if found not in ("npz", "npy", "parquet", "table"):
        raise UserError(f"{path} is {found}; save its labels as a CSV file (path,label)")
    return found


def _array_file(source: Source, path: str, kind: str) -> tuple[Labels, list[str]]:
    y = read_npy(path) if kind == "npy" else read_npz(path, "y")
    if y is None:
        raise UserError(f"{path} holds no array y ({npz_names(path)}); save it with numpy.savez(path, y=labels)")
    if y.shape[:1] != (len(source),):
        raise UserError(f"{path}: y has the shape {y.shape}, but {source.name} has {len(source)} samples")
    order = (
        [] if _has_numbers(source) else [f"y is in the order of the samples, of which the first is {source.path(0)!r}"]
    )
    return array_labels(path, y), order


def _given_labels(source: Source, labels: Any) -> tuple[Labels, list[str]]:
    """Return labels that are Python values: one a sample, or by path."""
    if isinstance(labels, Labels):
        found = labels
    elif isinstance(labels, Mapping):
        return _by_path(source, "labels", pack(map(os.fsencode, labels)), list(labels.values()))
    elif hasattr(labels, "columns") and hasattr(labels, "to_dict"):
        raise UserError("labels are a table: give one of its columns, or a mapping from path to label")
    elif not isinstance(labels, Iterable):
        raise UserError(f"labels are {HELP}, or in Python one a sample, not {type(labels).__name__}")
    else:
        index = getattr(labels, "index", None)
        if hasattr(labels, "detach"):
            labels = labels.detach().cpu()
        if hasattr(labels, "__array__") and hasattr(labels, "shape") and not hasattr(labels, "iloc"):
            labels = np.asarray(labels)
        values = list(labels)
        if index is not None and not callable(index) and _name_paths(source, index):
            return _by_path(source, "labels", pack(map(os.fsencode, index)), values)
        floats = values and all(isinstance(value, float | np.floating) for value in values)
        if floats or (isinstance(labels, np.ndarray) and labels.dtype != object):
            found = array_labels("labels", np.asarray(labels))
        else:
            found = read_labels(values)
    if len(found.ids) != len(source):
        raise UserError(f"{len(found.ids)} labels for the {len(source)} samples of {source.name}")
    return found, []


def _packed(values: Iterable[Any]) -> pa.Array:
    return pa.array([None if (text := _written(v)) is None else os.fsencode(text) for v in values], "large_binary")


def _name_paths(source: Source, index: Any) -> bool:
    """Tell whether the index of a Series is the paths of the samples."""
    names = list(index)
    return bool(names) and all(isinstance(name, str) for name in names) and set(names) >= set(_texts(source))


def _texts(source: Source) -> list[str]:
    return [source.path(i) for i in range(len(source))]


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


def _has_numbers(source: Source) -> bool:
    return source.path(0) == "0"  # samples that have numbers, not paths


def _folder_labels(source: Source) -> Labels:
    if _has_numbers(source):
        raise UserError(
            f"{source.name} has no folders to take labels from; give a CSV file (path,label) or .npz with y"
        )
    paths = sample_paths(source)
    if isinstance(source, Files) and not source.root:  # a list of whole paths
        paths = pc.replace_substring(paths, pattern=_around(paths), replacement=b"", max_replacements=1)
    first = pc.replace_substring_regex(paths, pattern="(?s)/.*", replacement="")
    labels = read_labels(pc.if_else(pc.match_substring(paths, "/"), first, pa.scalar(b"", pa.large_binary())), {""})
    if not labels.classes:
        raise UserError(f"the files of {source.name} are not in subfolders that could name their classes")
    parts = [name for name in labels.classes if name.casefold() in PARTS]
    if len(parts) > 1:
        one, other = sorted(parts, key=lambda name: not name.casefold().startswith("train"))[:2]
        raise UserError(
            f"the folders {' and '.join(map(repr, parts))} of {source.name} are parts of a data set, not classes: give "
            f"{os.path.join(source.name, one)} as data, and {os.path.join(source.name, other)} as --test; or label "
            "them with a CSV file (path,label)"
        )
    return labels


def _around(paths: pa.Array) -> bytes:
    """Return the folder that all paths have in common, with its slash; nothing where there is none."""
    least, most = (paths[i].as_py() for i in pc.sort_indices(paths).take(pa.array([0, len(paths) - 1])).to_pylist())
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(least.split(b"/")[:-1], most.split(b"/")[:-1], strict=False))
    return b"/".join([*(folder for folder, _ in pairs), b""])


def _table_labels(source: Source, path: str, kind: str, columns: Mapping[str, str]) -> tuple[Labels, list[str]]:
    """Return labels from a table of paths and labels, and what was done to read it."""
    try:
        if kind == "parquet":
            return _parquet_labels(source, path, columns)
        table = open_table(path)
        path_column, label_column, header, notes = _choose(source, table, columns)
        batches = list(table.batches([path_column, label_column], header))
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        reason = str(error.args[0] if error.args else error).splitlines()[0]
        raise UserError(f"{path} must be a CSV file with the columns path,label: {reason}") from None
    given, label = (whole_column(batches, place) for place in (0, 1))
    some = pc.or_(pc.not_equal(pc.binary_length(given), 0), pc.not_equal(pc.binary_length(label), 0))
    found, more = _by_path(source, path, given.filter(some), label.filter(some))
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
    labels, more = _by_path(source, path, _packed(one or "" for one, _ in given), [value for _, value in given])
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


def _by_path(source: Source, name: str, given: pa.Array, values: pa.Array | list[Any]) -> tuple[Labels, list[str]]:
    """Return the labels of samples by their paths, and how paths were matched."""
    several = isinstance(values, list) and any(map(_is_list, values))
    label = _packed(values) if isinstance(values, list) else values
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
