"""Sources: numbered samples in a fixed order, read lazily, with labels where they were asked for."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from selfsup.data.images import Broken, read_image
from selfsup.errors import UserError

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class ImageSpec:
    """What an encoder gets: square pictures of `size` pixels; values (x / 255 - mean) / std, one pair a channel."""

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
    def of(cls, names: Sequence[object]) -> Labels:
        """Return labels from one name a sample; None or an empty name means no label. Numbers sort as numbers."""
        texts = ["" if n is None else str(n) for n in names]
        known = sorted({t for t in texts if t}, key=lambda t: (0, int(t), t) if t.isdigit() else (1, 0, t))
        number = {name: i for i, name in enumerate(known)}
        return cls(np.array([number.get(t, -1) for t in texts], dtype=np.int64), tuple(known))


@runtime_checkable
class Source(Protocol):
    """What every source offers. Samples are numbered; the number of a sample never changes."""

    name: str
    labels: Labels | None

    def __len__(self) -> int: ...

    def read(self, index: int) -> Any:
        """Return one sample (pictures: (H, W, C) uint8), or raise `Broken`."""

    def path(self, index: int) -> str:
        """Return what a user knows the sample by: its path, or its number."""

    def spec(self, size: int | None = None, channels: int | None = None) -> Any:
        """Return the spec of the samples as an encoder gets them (pictures: `ImageSpec`)."""

    def take(self, indices: NDArray[np.int64]) -> Source:
        """Return a source of some of the samples, with their labels, in the given order."""

    def fingerprint(self) -> str:
        """Return a short hash that changes when the data do: a run goes on only with the data that it began with."""


class Arrays:
    """Pictures in memory: `x` uint8 (N, H, W, C)."""

    def __init__(self, x: NDArray[np.uint8], labels: Labels | None = None, name: str = "arrays") -> None:
        if x.ndim == 3:
            x = x[..., None]
        if x.ndim != 4 or x.dtype != np.uint8:
            raise UserError(f"{name}: x must be uint8 of shape (N, H, W) or (N, H, W, C), not {x.dtype} {x.shape}")
        if len(x) == 0:
            raise UserError(f"{name} holds no pictures")
        if labels is not None and len(labels.ids) != len(x):
            raise UserError(f"{name}: {len(labels.ids)} labels for {len(x)} pictures")
        self.x, self.labels, self.name = np.ascontiguousarray(x), labels, name

    def __len__(self) -> int:
        return len(self.x)

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return (H, W, C) uint8."""
        picture: NDArray[np.uint8] = self.x[index]
        return picture

    def path(self, index: int) -> str:
        """Return the sample's number."""
        return str(index)

    def spec(self, size: int | None = None, channels: int | None = None) -> ImageSpec:
        """Return the arrays' own size (the shorter side) and channels unless others are asked for."""
        return ImageSpec.of(size or min(self.x.shape[1:3]), channels or self.x.shape[3])

    def take(self, indices: NDArray[np.int64]) -> Arrays:
        """Return some of the pictures."""
        return Arrays(self.x[indices], self.labels and self.labels.take(indices), self.name)

    def fingerprint(self) -> str:
        """Return a hash of every pixel."""
        return hashlib.blake2b(self.x.data, digest_size=8).hexdigest()


class Files:
    """Picture files below `root`. Paths are raw bytes in one Arrow array: light for millions, any file name."""

    def __init__(self, root: str, paths: pa.Array, labels: Labels | None = None, name: str | None = None) -> None:
        self.root, self.paths, self.labels = os.fsencode(root), paths, labels
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
        """Return 3 channels and 224 pixels, or the median shorter side of the first 16 pictures if that is smaller."""
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
        """Return a hash of all relative paths in order."""
        digest = hashlib.blake2b(digest_size=8)
        for buffer in pa.concat_arrays([self.paths]).buffers()[1:]:
            digest.update(buffer)
        return digest.hexdigest()
