"""Labels from the names of folders, a CSV file or an .npz file."""

from __future__ import annotations

import copy
import os
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

from selfsup.data.image import Files
from selfsup.data.index import pack
from selfsup.data.npz import read_npz
from selfsup.errors import UserError
from selfsup.source import Labels, Source


def with_labels(source: Source, labels: str) -> Source:
    """Return the source with other labels.

    Args:
        source: Any source.
        labels: `folders` (the first folder below the root, or in a list file of its relative paths, names the class);
            a CSV file with the columns path and label (paths as `source.path` returns them; samples that are not
            listed, or have an empty label there, have none); or an `.npz` file with y, one a sample (below 0 or NaN:
            none).

    Raises:
        UserError: For labels of unknown paths, rows that disagree, another number of labels, or no label at all.
    """
    if labels == "folders":
        found = _folder_labels(source)
    elif not os.path.isfile(labels):
        raise UserError(f"no label file {labels!r}; give 'folders', a CSV file (path,label) or an .npz file with y")
    elif labels.endswith(".npz"):
        found = _npz_labels(source, labels)
    else:
        found = _csv_labels(source, labels)
    if not found.classes:
        raise UserError(f"{labels} gives no label to any sample of {source.name}")
    labelled = copy.copy(source)
    labelled.labels = found
    return labelled


def array_labels(name: str, y: NDArray[Any]) -> Labels:
    """Return labels from an array of whole numbers (below 0: none) or names, one a sample; `UserError` for others."""
    if y.ndim != 1 or y.dtype.kind not in "biufSU":
        raise UserError(f"{name}: y must hold one number or name a sample, not {y.dtype} {y.shape}")
    if y.dtype.kind == "f":
        if (y[np.isfinite(y)] % 1 != 0).any() or np.isinf(y).any():
            raise UserError(
                f"{name}: y holds fractions or infinity; labels are classes: numbers without a fraction or names"
            )
        y = np.where(np.isnan(y), -1, y).astype(np.int64)
    if y.dtype.kind == "i":
        return Labels.of([None if label < 0 else label for label in y.tolist()])
    return Labels.of([os.fsdecode(label) if isinstance(label, bytes) else label for label in y.tolist()])


def _npz_labels(source: Source, path: str) -> Labels:
    y = read_npz(path, "y")
    if y is None:
        raise UserError(f"{path} holds no array y; save it with numpy.savez(path, y=labels)")
    if y.shape[:1] != (len(source),):
        raise UserError(f"{path}: y has the shape {y.shape}, but {source.name} has {len(source)} samples")
    return array_labels(path, y)


def _paths(source: Source) -> pa.Array:
    if isinstance(source, Files):
        return source.paths
    return pack(os.fsencode(source.path(i)) for i in range(len(source)))


def _folder_labels(source: Source) -> Labels:
    if source.path(0) == "0":  # samples that have numbers, not paths
        raise UserError(
            f"{source.name} has no folders to take labels from; give a CSV file (path,label) or .npz with y"
        )
    paths = _paths(source)
    first = pc.replace_substring_regex(paths, pattern="(?s)/.*", replacement="")
    labels = Labels.of(pc.if_else(pc.match_substring(paths, "/"), first, pa.scalar(b"", pa.large_binary())))
    if not labels.classes:
        raise UserError(f"the files of {source.name} are not in subfolders that could name their classes")
    return labels


def _csv_labels(source: Source, path: str) -> Labels:
    columns = {"path": pa.large_binary(), "label": pa.large_binary()}
    try:
        table = pa.csv.read_csv(
            path,
            parse_options=pa.csv.ParseOptions(newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(column_types=columns, include_columns=list(columns)),
        )
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        reason = str(error.args[0] if error.args else error).splitlines()[0]
        raise UserError(f"{path} must be a CSV file with the columns path,label: {reason}") from None
    given = pc.replace_substring_regex(_whole(table["path"]), pattern=r"^\./", replacement="")
    label = _whole(table["label"])
    paths = _paths(source)
    strange = pc.invert(pc.is_in(given, value_set=paths))
    if count := pc.sum(strange).as_py():
        some, own = os.fsdecode(given.filter(strange)[0].as_py()), source.path(0)
        raise UserError(
            f"{path} labels {count:,} paths that {source.name} does not have, for example {some!r}; "
            f"its paths are like {own!r}"
        )
    first = label.take(pc.index_in(given, value_set=given))
    differs = pc.not_equal(first, label)
    if pc.any(differs).as_py():
        some = os.fsdecode(given.filter(differs)[0].as_py())
        raise UserError(f"{path} gives {some!r} two different labels; keep one row for each path")
    return Labels.of(label.take(pc.index_in(paths, value_set=given)))


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays([pa.array([], pa.large_binary()), *column.chunks])
