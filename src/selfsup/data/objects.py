"""From what Python programs hold data in to a `Source`: lists, tensors, columns of a table, data sets of torch."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from selfsup.base.opening import opening
from selfsup.data.image import Arrays, Files
from selfsup.data.image.decode import SUFFIXES
from selfsup.data.image.items import Items, array_of, channels_last, has_channels_last, pixels_of
from selfsup.data.index import pack
from selfsup.data.label_values import read_labels
from selfsup.data.text.open import column_labels, listed_texts
from selfsup.data.text.sources import Texts
from selfsup.errors import UserError
from selfsup.source import Broken, Labels, Source

IMAGE_COLUMNS, TEXT_COLUMNS = ("image", "img", "pixel_values", "png", "jpg"), ("text", "sentence", "content")
LABEL_COLUMNS = ("label", "labels", "fine_label", "target", "class")
TAKES = (
    "a path, an array or a tensor, a list of paths, images or texts, a column of a table, or a data set with a length "
    "and numbered items"
)


def open_object(data: Any) -> Source:
    """Return the samples in a Python object.

    Arrays (N, H, W[, C]); tensors (N, C, H, W), or (N, H, W, C) if their last dimension is at most 4 and the second is
    not; lists, tuples and columns of pandas or Arrow, of paths (`Path`, or text with the suffix of an image), texts,
    arrays, tensors or images of Pillow; map-style data sets of torch, torchvision and Hugging Face. Labels come with
    data sets that hold them in `targets`, `labels` or a column.

    Raises `UserError` for anything else, naming the row of a list that is not like the others.
    """
    if hasattr(data, "kind") and hasattr(data, "read"):
        return data  # a source
    if isinstance(data, np.ndarray) and data.dtype.kind not in "OUST":
        return Arrays(data)
    if hasattr(data, "detach"):
        return _tensor(data)
    if hasattr(data, "columns"):
        names = list(getattr(data, "column_names", data.columns))
        if len(names) != 1 or not hasattr(data, "iloc"):
            several = ", ".join(map(repr, names[:8]))
            raise UserError(f"the data are a table with the columns {several}: give one of them, and another as labels")
        data = data.iloc[:, 0]
    if hasattr(data, "column_names"):
        return _columns(data)
    for convert in ("tolist", "to_list", "to_pylist"):  # of arrays and pandas, polars, Arrow
        if hasattr(data, convert):
            return _listed(list(getattr(data, convert)()))
    if isinstance(data, list | tuple):
        return _listed(data)
    if isinstance(data, Mapping):
        raise UserError(f"the data are a mapping with the keys {', '.join(map(repr, list(data)[:8]))}: give one value")
    if hasattr(data, "dataset") and hasattr(data, "batch_size"):
        raise UserError("the data are a loader of batches: give its data set, loader.dataset")
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return _dataset(data)
    if isinstance(data, Iterable):
        raise UserError(f"{type(data).__name__} can only be gone through: give a list of its samples")
    raise UserError(f"data must be {TAKES}, not {type(data).__name__}")


def dataset_labels(dataset: Any, name: str) -> Labels | None:
    """Return the labels that a data set of torch holds in `targets` or `labels`, one a sample; None for others."""
    if hasattr(dataset, "indices") and hasattr(dataset, "dataset"):  # torch's Subset
        inner = dataset_labels(dataset.dataset, name)
        return inner and inner.take(np.asarray(dataset.indices, np.int64))
    targets = getattr(dataset, "targets", getattr(dataset, "labels", None))
    if targets is None and len(getattr(dataset, "tensors", ())) > 1:  # torch's TensorDataset
        targets = dataset.tensors[1]
    targets = array_of(targets) if hasattr(targets, "detach") else targets
    if targets is None or callable(targets) or np.ndim(targets) != 1 or len(targets) != len(dataset):
        return None
    values = np.asarray(targets)
    classes = tuple(map(str, getattr(dataset, "classes", ())))
    if classes and values.dtype.kind in "iu" and values.min() >= -1 and values.max() < len(classes):
        return Labels(values.astype(np.int64), classes)
    return read_labels(values.tolist())


def _tensor(data: Any) -> Arrays:
    pixels = array_of(data)
    if pixels.ndim != 4:
        return Arrays(pixels, name="tensor")
    source = Arrays(channels_last(pixels), name="tensor")
    order = "(N, H, W, C)" if has_channels_last(pixels) else "(N, C, H, W)"
    source.notes = (f"tensor: the shape {tuple(pixels.shape)} is read as {order}",)
    return source


def _columns(data: Any) -> Source:
    """Return one column of a data set of Hugging Face, with its labels."""
    if isinstance(data, Mapping):
        raise UserError(f"the data set has the parts {', '.join(map(repr, data))}: give one of them")
    if not hasattr(data, "__len__"):
        raise UserError("the data set is a stream, which has no numbered samples: load it without streaming")
    names: list[str] = list(data.column_names)
    image, text, label = (
        next((name for name in known if name in names), None) for known in (IMAGE_COLUMNS, TEXT_COLUMNS, LABEL_COLUMNS)
    )
    if image is None and text is None:
        raise UserError(f"the data set has the columns {', '.join(map(repr, names[:8]))}, none of images or texts")
    labels, notes = (None, ()) if label is None else _if_labels("data set", lambda: column_labels(data, label))
    source: Items | Texts
    if image is not None:
        source = Items(data, "data set", labels, key=image)
    else:
        rows = list(data[text])
        for number, row in enumerate(rows):
            if not isinstance(row, str):
                raise UserError(f"row {number} of the column {text!r} is {_shown(row)}, not a text: leave it out")
        source = listed_texts(rows, "data set")
        source.labels = labels
    told = f" with the labels in {label!r}" if labels else ""
    source.notes = (f"data set: the column {image or text!r} is read{told}", *notes)
    return source


def _dataset(data: Any) -> Source:
    """Return a map-style data set of torch: its items are images, or begin with one."""
    name = type(data).__name__
    if not len(data):
        raise UserError(f"{name} holds no samples")
    inner = data
    while hasattr(inner, "indices") and hasattr(inner, "dataset"):
        inner = inner.dataset
    transforms = any(getattr(inner, key, None) is not None for key in ("transform", "transforms"))
    try:
        first, key = data[0], None
    except Exception as error:  # it may raise anything
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(f"{name}: item 0 cannot be read: {type(error).__name__}: {reason}") from error
    if isinstance(first, Mapping):
        key = next((key for key in IMAGE_COLUMNS if key in first), None)
        if key is None:
            raise UserError(f"the items of {name} have {', '.join(map(repr, list(first)[:8]))}, none called 'image'")
    labels, notes = _if_labels(name, lambda: dataset_labels(data, name))
    source = Items(data, name, labels, key, fixed=not transforms)
    source.notes = notes
    if transforms:
        source.notes = (
            *notes,
            f"{name}: its own transform is applied to each image, before the views of the task",
        )
    if source.labels is None and isinstance(first, tuple | list) and len(first) > 1:
        source.notes = (*source.notes, f"{name}: only its images are read; give their labels as labels=[…]")
    return source


def _listed(rows: Sequence[Any]) -> Source:
    """Return a list of samples of one kind."""
    kinds = [_kind(row) for row in rows]
    texts = [row for row, kind in zip(rows, kinds, strict=True) if kind == "a text"]
    if sum(map(_is_path, texts)) > len(texts) / 2:  # by most of them: a text may end in .png, and a path without it
        kinds = ["a path" if kind == "a text" else kind for kind in kinds]
    wanted = next((kind for kind in kinds if kind), None)
    if wanted is None:
        raise UserError("the list of samples is empty" if not len(rows) else f"row 0 is {_shown(rows[0])}, no sample")
    for number, kind in enumerate(kinds):
        if kind != wanted:
            remedy = "leave it out" if _missing(rows[number]) else "give samples of one kind"
            raise UserError(f"row {number} of the data is {_shown(rows[number])}, not {wanted}: {remedy}")
    if wanted == "a path":
        paths = [os.path.expanduser(os.fsdecode(row)) for row in rows]
        if all(path.lower().endswith(".txt") for path in paths):
            return listed_texts(list(map(Path, paths)), "texts")
        return Files("", pack(map(os.fsencode, paths)), name="paths").paged(opening().pages)
    if wanted == "a text":
        return listed_texts(rows, "texts")
    if wanted == "an array":
        try:
            images = [pixels_of(row) for row in rows]
        except Broken as error:
            raise UserError(f"the list holds no images: {error}") from None
        if len({(image.shape, image.dtype) for image in images}) == 1:
            return Arrays(np.stack(images))
    return Items(rows, "images")


def _kind(row: Any) -> str:
    if isinstance(row, os.PathLike):
        return "a path"
    if isinstance(row, str):
        return "a text"
    if isinstance(row, Image.Image):
        return "an image of Pillow"
    if hasattr(row, "detach") or hasattr(row, "__array__"):
        return "an array" if row.ndim in (2, 3) else ""
    return "the bytes of an image" if isinstance(row, bytes | bytearray) else ""


def _if_labels(name: str, read: Callable[[], Labels | None]) -> tuple[Labels | None, tuple[str, ...]]:
    """Return labels, or a note why there are none: nobody has asked for those that come with data."""
    try:
        return read(), ()
    except UserError as error:
        return None, (f"{name}: its labels are not read: {error}",)


def _is_path(text: str) -> bool:
    """Return whether a text is the path of an image or text file, rather than a document."""
    return "\n" not in text and text.lower().endswith((*SUFFIXES, ".txt"))


def _missing(row: Any) -> bool:
    return row is None or type(row).__name__ in ("NAType", "NaTType") or (isinstance(row, float) and math.isnan(row))


def _shown(row: Any) -> str:
    return f"{row!r:.40}" if _missing(row) or isinstance(row, str | int | float) else type(row).__name__
