"""Sources of images: arrays in memory, and files."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from selfsup.data.image.decode import read_image
from selfsup.data.index import BLOCK
from selfsup.errors import UserError
from selfsup.source import Broken, Labels, Source
from selfsup.spec import ImageSpec, Spec
from selfsup.spec.image import MAX_CHANNELS


class Arrays:
    """Images in memory: `x` uint8 or uint16 (N, H, W[, C]), up to 64 channels. Raises `UserError` for others."""

    kind = "image"

    def __init__(self, x: NDArray[Any], labels: Labels | None = None, name: str = "arrays") -> None:
        if x.ndim not in (3, 4) or x.dtype not in (np.uint8, np.uint16):
            hint = "; images of 0 to 1 become uint8 by (x * 255).round().astype('uint8')" if x.dtype.kind == "f" else ""
            raise UserError(
                f"{name}: x must be uint8 or uint16 of shape (N, H, W) or (N, H, W, C), not {x.dtype} {x.shape}{hint}"
            )
        if x.ndim == 3:
            x = x[..., None]
        if len(x) == 0:
            raise UserError(f"{name} holds no images")
        if x.shape[1] in (1, 3) and x.shape[3] > 4:
            raise UserError(f"{name}: x has the shape {x.shape}; channels come last: x.transpose(0, 2, 3, 1)")
        if 0 in x.shape or x.shape[3] > MAX_CHANNELS:
            raise UserError(f"{name}: x has the shape {x.shape}; images have 1 to {MAX_CHANNELS} channels, last")
        if labels is not None and len(labels.ids) != len(x):
            raise UserError(f"{name}: {len(labels.ids)} labels for {len(x)} images")
        self.x, self.labels, self.name = np.ascontiguousarray(x), labels, name

    def __len__(self) -> int:
        return len(self.x)

    def extent(self, index: int) -> int:
        """Return 1."""
        return 1

    def read(self, index: int, span: slice | None = None) -> NDArray[Any]:
        """Return (H, W, C), in the type of the arrays."""
        return self.x[index]

    def path(self, index: int) -> str:
        """Return the sample's number."""
        return str(index)

    def spec(self, size: int | None = None, channels: int | None = None) -> ImageSpec:
        """Return what an encoder gets of these arrays.

        Args:
            size: Pixels a side; by default the arrays' own shorter side, at least 8, in [8, 4096].
            channels: Channels of an image; by default the arrays' own, in [1, 64].

        Raises:
            UserError: For other channels than their own, unless grey becomes several or colour becomes grey.
        """
        return array_spec(self.x.shape[1:], self.name, size, channels)

    def conform(self, spec: Spec) -> Arrays:
        """Return the same; the views convert the channels."""
        return conformed(self, spec)

    def take(self, indices: NDArray[np.int64]) -> Arrays:
        """Return some of the images."""
        return Arrays(self.x[indices], self.labels and self.labels.take(indices), self.name)

    def fingerprint(self) -> str:
        """Return a hash of the shape, every pixel and the labels."""
        digest = hashlib.blake2b(repr(self.x.shape).encode(), digest_size=8)
        digest.update(self.x.data)
        return _with_labels(digest, self.labels)


class Files:
    """Image files below `root`. Paths are raw bytes in one Arrow array: light for millions, any file name.

    `channels`: the number with which files are read, 3 unless `conform` changes it.
    """

    kind = "image"
    channels = 3

    def __init__(self, root: str, paths: pa.Array, labels: Labels | None = None, name: str | None = None) -> None:
        self.root, self.paths, self.labels = os.fsencode(root), paths.cast(pa.large_binary()), labels
        self.name = name or root

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, index: int) -> str:
        """Return the path relative to the root; bytes that are not UTF-8 as surrogate escapes."""
        return os.fsdecode(self.paths[index].as_py())

    def extent(self, index: int) -> int:
        """Return 1."""
        return 1

    def file(self, index: int) -> bytes:
        """Return the whole path of the file."""
        return os.path.join(self.root, self.paths[index].as_py())

    def read(self, index: int, span: slice | None = None) -> NDArray[np.uint8]:
        """Return (H, W, channels) uint8, or raise `Broken`."""
        return read_image(self.file(index), self.channels)

    def spec(self, size: int | None = None, channels: int | None = None) -> ImageSpec:
        """Return what an encoder gets of these files.

        Args:
            size: Pixels a side; by default the median shorter side of the first 16 images, at most 224, in [8, 4096].
            channels: Channels of an image, 1, 3 or 4 for image files (3 by default); arrays keep their own, in [1, 64].

        Raises:
            UserError: For other channels than 1, 3 and 4, which image files do not have.
        """
        if channels not in (None, 1, 3, 4):
            raise UserError(f"image files are read with 1, 3 or 4 channels, not {channels}: give another --channels")
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

    def conform(self, spec: Spec) -> Files:
        """Return the same files, read with the channels of the spec."""
        same = conformed(self, spec)
        assert isinstance(spec, ImageSpec)
        if spec.channels == self.channels:
            return same
        same = copy.copy(self)
        same.channels = spec.channels
        return same

    def take(self, indices: NDArray[np.int64]) -> Files:
        """Return some of the files."""
        taken = copy.copy(self)
        taken.paths = self.paths.take(pa.array(indices))
        taken.labels = self.labels and self.labels.take(indices)
        return taken

    def fingerprint(self) -> str:
        """Return a hash of all relative paths in order, and of the labels, but not of the files' contents."""
        digest = hashlib.blake2b(digest_size=8)
        for start in range(0, len(self), BLOCK):
            digest.update(b"\0".join([*self.paths[start : start + BLOCK].to_pylist(), b""]))
        return _with_labels(digest, self.labels)


S = TypeVar("S", bound=Source)


def conformed(source: S, spec: Spec) -> S:
    """Return the source; raise `UserError` for a spec of another kind, or channels that are impossible here."""
    if not isinstance(spec, ImageSpec):
        raise UserError(f"{source.name} holds no {spec.samples}, which this encoder takes")
    source.spec(size=spec.size, channels=spec.channels)
    return source


def array_spec(shape: Sequence[int], name: str, size: int | None, channels: int | None) -> ImageSpec:
    """Return the spec of images of `shape` (H, W, C), with another size or number of channels if given.

    Raises `UserError` for a number of channels to which they cannot be converted.
    """
    have = shape[2]
    if channels not in (None, have) and have != 1 and not (channels == 1 and have >= 3):
        raise UserError(f"{name} has {have} channels, which cannot become {channels}: give another --channels")
    return ImageSpec.of(size or max(min(shape[:2]), 8), channels or have)


def _with_labels(digest: hashlib.blake2b, labels: Labels | None) -> str:
    if labels is not None:
        digest.update(labels.digest())
    return digest.hexdigest()


def image_spec(source: Source, **given: Any) -> ImageSpec:
    """Return the spec of images with the options that were given; `UserError` for data of another kind."""
    spec = source.spec(**{key: value for key, value in given.items() if value is not None})
    if not isinstance(spec, ImageSpec):
        raise UserError(f"{source.name} holds no images")
    return spec
