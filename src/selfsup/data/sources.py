"""Sources: numbered samples in a fixed order, read lazily, with labels where they were asked for."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from selfsup.data.images import Broken, read_image
from selfsup.data.index import BLOCK
from selfsup.errors import UserError

MAX_CHANNELS = 64
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class ImageSpec:
    """What an encoder gets: square pictures of `size` pixels; values (x / 255 - mean) / std, one pair a channel."""

    kind: ClassVar[str] = "image"  # the modality

    size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, size: int, channels: int) -> ImageSpec:
        """Return the usual normalisation: ImageNet's for colour, 0.5 and 0.5 for anything else."""
        mean, std = IMAGENET if channels == 3 else ((0.5,) * channels, (0.5,) * channels)
        return cls(size, channels, mean, std)


@dataclass(frozen=True)
class Labels:
    """`ids` (N,) int64, -1 where a sample has no label; `classes` are their names, in order."""

    ids: NDArray[np.int64]
    classes: tuple[str, ...]

    def take(self, indices: NDArray[np.int64]) -> Labels:
        """Return the labels of some samples; the classes stay."""
        return Labels(self.ids[indices], self.classes)

    @classmethod
    def of(cls, names: Iterable[object] | pa.Array) -> Labels:
        """Return labels from one name a sample, as objects or as an Arrow array of binary.

        None or an empty name means no label. Numbers in names sort as numbers: 2 before 10. Bytes that are no UTF-8
        are shown as \\x and two digits.
        """
        if not isinstance(names, pa.Array):
            names = pa.array([None if n is None else os.fsencode(str(n)) for n in names], pa.large_binary())
        encoded = names.dictionary_encode()
        texts = [name.decode(errors="backslashreplace") for name in encoded.dictionary.to_pylist()]
        known = sorted({text for text in texts if text}, key=_natural)
        number = {name: i for i, name in enumerate(known)}
        place = np.array([*(number.get(text, -1) for text in texts), -1], dtype=np.int64)
        return cls(place[encoded.indices.fill_null(len(texts)).to_numpy()], tuple(known))

    def digest(self) -> bytes:
        """Return a hash of names and ids, a part of a source's fingerprint."""
        return hashlib.blake2b(repr(self.classes).encode() + self.ids.tobytes(), digest_size=8).digest()


def _natural(text: str) -> tuple[list[str | float], str]:
    parts = re.split(r"([0-9]+)", text)  # text, number, text, …
    return [float(part) if i % 2 else part for i, part in enumerate(parts)], text


@runtime_checkable
class Source(Protocol):
    """What every source offers. Samples are numbered; the number of a sample never changes."""

    name: str
    labels: Labels | None

    def __len__(self) -> int: ...

    def read(self, index: int) -> Any:
        """Return one sample (pictures: (H, W, C) uint8 or uint16), or raise `Broken`."""

    def path(self, index: int) -> str:
        """Return what a user knows the sample by: its path, or its number."""

    def spec(self, size: int | None = None) -> Any:
        """Return the spec of the samples as an encoder gets them (pictures: `ImageSpec`, texts: `TextSpec`).

        A source takes further options by name: channels of pictures, the tokenizer of texts.
        """

    def take(self, indices: NDArray[np.int64]) -> Source:
        """Return a source of some of the samples, with their labels, in the given order."""

    def fingerprint(self) -> str:
        """Return a short hash that changes when the data do: a run goes on only with the data that it began with."""


class Arrays:
    """Pictures in memory: `x` uint8 or uint16 (N, H, W[, C]), up to 64 channels. Raises `UserError` for others."""

    def __init__(self, x: NDArray[Any], labels: Labels | None = None, name: str = "arrays") -> None:
        if x.ndim not in (3, 4) or x.dtype not in (np.uint8, np.uint16):
            hint = (
                "; pictures of 0 to 1 become uint8 by (x * 255).round().astype('uint8')" if x.dtype.kind == "f" else ""
            )
            raise UserError(
                f"{name}: x must be uint8 or uint16 of shape (N, H, W) or (N, H, W, C), not {x.dtype} {x.shape}{hint}"
            )
        if x.ndim == 3:
            x = x[..., None]
        if len(x) == 0:
            raise UserError(f"{name} holds no pictures")
        if x.shape[1] in (1, 3) and x.shape[3] > 4:
            raise UserError(f"{name}: x has the shape {x.shape}; channels come last: x.transpose(0, 2, 3, 1)")
        if 0 in x.shape or x.shape[3] > MAX_CHANNELS:
            raise UserError(f"{name}: x has the shape {x.shape}; pictures have 1 to {MAX_CHANNELS} channels, last")
        if labels is not None and len(labels.ids) != len(x):
            raise UserError(f"{name}: {len(labels.ids)} labels for {len(x)} pictures")
        self.x, self.labels, self.name = np.ascontiguousarray(x), labels, name

    def __len__(self) -> int:
        return len(self.x)

    def read(self, index: int) -> NDArray[Any]:
        """Return (H, W, C), in the type of the arrays."""
        picture: NDArray[Any] = self.x[index]
        return picture

    def path(self, index: int) -> str:
        """Return the sample's number."""
        return str(index)

    def spec(self, size: int | None = None, channels: int | None = None) -> ImageSpec:
        """Return the arrays' own size (the shorter side, at least 8) and channels unless others are asked for.

        Grey becomes any number of channels, colour becomes grey; raises `UserError` for other changes.
        """
        return array_spec(self.x.shape[1:], self.name, size, channels)

    def take(self, indices: NDArray[np.int64]) -> Arrays:
        """Return some of the pictures."""
        return Arrays(self.x[indices], self.labels and self.labels.take(indices), self.name)

    def fingerprint(self) -> str:
        """Return a hash of the shape, every pixel and the labels."""
        digest = hashlib.blake2b(repr(self.x.shape).encode(), digest_size=8)
        digest.update(self.x.data)
        return _with_labels(digest, self.labels)


class Files:
    """Picture files below `root`. Paths are raw bytes in one Arrow array: light for millions, any file name."""

    def __init__(self, root: str, paths: pa.Array, labels: Labels | None = None, name: str | None = None) -> None:
        self.root, self.paths, self.labels = os.fsencode(root), paths.cast(pa.large_binary()), labels
        self.name = name or root

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, index: int) -> str:
        """Return the path relative to the root; bytes that are no UTF-8 as surrogate escapes."""
        return os.fsdecode(self.paths[index].as_py())

    def read(self, index: int, channels: int = 3) -> NDArray[np.uint8]:
        """Return (H, W, channels) uint8, or raise `Broken`."""
        return read_image(os.path.join(self.root, self.paths[index].as_py()), channels)

    def spec(self, size: int | None = None, channels: int | None = None) -> ImageSpec:
        """Return 3 channels and 224 pixels, or the median shorter side of the first 16 pictures if that is smaller.

        Raises `UserError` for channels other than 1, 3 and 4, which picture files do not have.
        """
        if channels not in (None, 1, 3, 4):
            raise UserError(f"picture files are read with 1, 3 or 4 channels, not {channels}: give another --channels")
        if size is None:
            sides = []
            for index in range(min(len(self), 16)):
                try:
                    sides.append(min(self.read(index).shape[:2]))
                except Broken:
                    continue
            size = min(224, int(np.median(sides))) if sides else 224
            size = size if size <= 64 else size // 32 * 32
        return ImageSpec.of(max(size, 8), channels or 3)

    def take(self, indices: NDArray[np.int64]) -> Files:
        """Return some of the files."""
        labels = self.labels and self.labels.take(indices)
        return Files(os.fsdecode(self.root), self.paths.take(pa.array(indices)), labels, self.name)

    def fingerprint(self) -> str:
        """Return a hash of all relative paths in order, and of the labels; what is in the files does not count."""
        digest = hashlib.blake2b(digest_size=8)
        for start in range(0, len(self), BLOCK):
            digest.update(b"\0".join([*self.paths[start : start + BLOCK].to_pylist(), b""]))
        return _with_labels(digest, self.labels)


def array_spec(shape: Sequence[int], name: str, size: int | None, channels: int | None) -> ImageSpec:
    """Return the spec of pictures of `shape` (H, W, C), with another size or number of channels where asked.

    Raises `UserError` for a number of channels that they cannot be given.
    """
    have = shape[2]
    if channels not in (None, have) and have != 1 and not (channels == 1 and have >= 3):
        raise UserError(f"{name} has {have} channels, which cannot become {channels}: give another --channels")
    return ImageSpec.of(size or max(min(shape[:2]), 8), channels or have)


def _with_labels(digest: hashlib.blake2b, labels: Labels | None) -> str:
    if labels is not None:
        digest.update(labels.digest())
    return digest.hexdigest()
