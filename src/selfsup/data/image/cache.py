"""Decoded images in memory or in a memory-mapped file, so that only the first epoch decodes."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfsup.data.image.decode import image_size, to_channels
from selfsup.data.image.files import Files
from selfsup.data.image.sources import image_only
from selfsup.errors import UserError
from selfsup.source import Broken, Source
from selfsup.spec import ImageSpec, Spec


class Decoded:
    """Image files with room for the pixels of each; a sample is decoded when it is first read.

    `limit`: the largest number of bytes of the pixels. `path`: a file for them, which a later run with the same data
    reuses; without one they stay in memory. Sizes are read from the headers, so that `UserError` is raised before
    anything is decoded if the pixels do not fit.
    """

    kind = "image"

    def __init__(self, source: Files, limit: int = 8 << 30, path: str | None = None) -> None:
        channels = source.channels or 3
        self.dtype = np.dtype(np.uint8 if source.range is None or source.range == "auto" else np.float32)
        self.source, self.channels, self.name, self.labels = source, channels, source.name, source.labels
        areas = np.array([_area(source, index) for index in range(len(source))], dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(areas * channels * self.dtype.itemsize)])
        needed = int(self._starts[-1])
        if needed > limit:
            fit = int(np.searchsorted(self._starts, limit, "right")) - 1
            raise UserError(
                f"the decoded images of {self.name} need {needed / 2**30:.1f} GiB and the limit is "
                f"{limit / 2**30:.1f} GiB, enough for {fit} of {len(source)}; "
                "raise the limit, use fewer images or no cache"
            )
        self._shapes = np.zeros((len(source), 2), dtype=np.int32)  # (0, 0): not decoded yet
        self._pixels: NDArray[np.uint8] = np.zeros(needed, np.uint8) if path is None else self._open(path, needed)

    def _open(self, path: str, needed: int) -> NDArray[np.uint8]:
        """Map the file: a line that identifies the data, the shapes (0, 0: not decoded yet), the pixels."""
        head = (
            json.dumps(
                {
                    "data": self.source.fingerprint(),
                    "channels": self.channels,
                    "range": self.source.range,
                    "bytes": needed,
                }
            ).encode()
            + b"\n"
        )
        head = head.ljust(-(-len(head) // 8) * 8)
        size = len(head) + self._shapes.nbytes + needed
        try:
            if not os.path.exists(path):
                with open(path, "wb") as file:
                    file.write(head)
                    file.truncate(size)
            with open(path, "rb") as file:
                if file.read(len(head)) != head or os.path.getsize(path) != size:
                    raise UserError(f"{path} holds other data; remove it or give another file")
            mapped = np.memmap(path, np.uint8, "r+")
        except OSError as error:
            raise UserError(f"cannot keep decoded images in {path}: {error.strerror}") from error
        middle = len(head) + self._shapes.nbytes
        self._shapes = mapped[len(head) : middle].view(np.int32).reshape(-1, 2)
        return mapped[middle:]

    def __len__(self) -> int:
        return len(self.source)

    def extent(self, index: int) -> int:
        """Return 1."""
        return 1

    def read(self, index: int, span: slice | None = None) -> NDArray[Any]:
        """Return (H, W, channels), uint8 or float32 as the files: a view of the cache, not to be modified."""
        place = self._pixels[self._starts[index] : self._starts[index + 1]].view(self.dtype)
        if not self._shapes[index].any():
            pixels = to_channels(self.source.read(index), self.channels)
            if pixels.dtype != self.dtype:
                raise Broken(f"{pixels.dtype} values among {self.dtype}: the cache cannot keep them")
            if pixels.size != place.size:
                raise Broken("not the size in its header")
            place[:] = pixels.reshape(-1)
            self._shapes[index] = pixels.shape[:2]  # last: another thread sees a shape only when the pixels are there
        return place.reshape(*self._shapes[index], self.channels)

    def path(self, index: int) -> str:
        """Return the file's path."""
        return self.source.path(index)

    def spec(
        self,
        size: int | None = None,
        channels: int | None = None,
        range: str | None = None,
        views: str | None = None,
    ) -> ImageSpec:
        """Return the spec of the files; see `Files.spec`."""
        return self.source.spec(size, channels or self.channels, range, views)

    def conform(self, spec: Spec) -> Decoded:
        """Return the same."""
        if image_only(self, spec).channels != self.channels:
            raise UserError(f"the decoded images of {self.name} have {self.channels} channels")
        return self

    def take(self, indices: NDArray[np.int64]) -> Source:
        """Return some of the files, without a cache."""
        return self.source.take(indices)

    def fingerprint(self) -> str:
        """Return the files' fingerprint."""
        return self.source.fingerprint()


def _area(source: Files, index: int) -> int:
    """Return the number of pixels in a file's header; 0 for a broken file."""
    try:
        wide, high = image_size(source.content(index))
    except Broken:  # `read` says it again when the sample is wanted
        return 0
    return wide * high
