"""Labels of a source: from the names of folders, a table, an array or Python values (`label_values`: the rule)."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from selfsup.base.paths import expanded
from selfsup.data.image import Files
from selfsup.data.index import pack
from selfsup.data.label_tables import by_path, sample_paths, split_columns, table_labels
from selfsup.data.label_values import array_labels, read_labels
from selfsup.data.npz import npz_names, read_npy, read_npz
from selfsup.errors import UserError
from selfsup.source import Labels, Source

if TYPE_CHECKING:
    LabelsGiven = str | os.PathLike[str] | Labels | Iterable[Any]
else:
    LabelsGiven = str  # what the command line can give

MARKS = {  # how files begin
    b"PK": "npz", b"\x93NUMPY": "npy", b"PAR1": "parquet", b"\x1f\x8b": "compressed", b"\x80": "a pickle",
    b"\xd0\xcf\x11\xe0": "a spreadsheet", b"SQLite": "a database",
}  # fmt: skip
PARTS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing", "dev", "eval", "holdout"})
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
        elif (form := _form_of(name)) in ("npz", "npy"):
            found, notes = _array_file(source, name, form)
        else:
            found, notes = table_labels(source, name, form, columns)
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


def _because(labels: Labels) -> str:
    return f" ({labels.notes[0]})" if labels.notes and len(labels.ids) else ""


def _form_of(path: str) -> str:
    """Return npz, npy, parquet or table by what a label file begins with; `UserError` for what is none of these."""
    with open(path, "rb") as file:
        head = file.read(16)
    found = next((form for mark, form in MARKS.items() if head.startswith(mark)), "table")
    if found == "npz" and path.lower().endswith((".xlsx", ".ods", ".zip")):
        found = "a spreadsheet or an archive"
    if found == "table" and head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith((b"[", b"{")):
        found = "JSON"
    if found not in ("npz", "npy", "parquet", "table"):
        raise UserError(f"{path} is {found}; save its labels as a CSV file (path,label)")
    return found


def _array_file(source: Source, path: str, form: str) -> tuple[Labels, list[str]]:
    y = read_npy(path) if form == "npy" else read_npz(path, "y")
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
        return by_path(source, "labels", pack(map(os.fsencode, labels)), list(labels.values()))
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
            return by_path(source, "labels", pack(map(os.fsencode, index)), values)
        floats = values and all(isinstance(value, float | np.floating) for value in values)
        if floats or (isinstance(labels, np.ndarray) and labels.dtype != object):
            found = array_labels("labels", np.asarray(labels))
        else:
            found = read_labels(values)
    if len(found.ids) != len(source):
        raise UserError(f"{len(found.ids)} labels for the {len(source)} samples of {source.name}")
    return found, []


def _name_paths(source: Source, index: Any) -> bool:
    """Tell whether the index of a Series is the paths of the samples."""
    names = list(index)
    return bool(names) and all(isinstance(name, str) for name in names) and set(names) >= set(_texts(source))


def _texts(source: Source) -> list[str]:
    return [source.path(i) for i in range(len(source))]


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
