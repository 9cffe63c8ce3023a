"""Images in tars: one read of a range each, made ahead where the shards are far away."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from selfsup.data.shards.ahead import Ahead
from selfsup.data.shards.index import checked
from selfsup.data.shards.kept import Kept
from selfsup.data.shards.objects import Object
from selfsup.source import Broken

REQUESTS = 48  # at a time
GAP, TOGETHER = 1 << 16, 8 << 20  # neighbours with less between them are one request, of at most so many bytes


class TarStore:
    """A `Store` of images in shards: `which` (N,) of the `shards`, from `starts` (N,), `sizes` (N,) bytes.

    `checksums` (N,) are compared on reading; -1 where there is none. Threads share nothing but what was fetched ahead.
    """

    block = 1

    def __init__(
        self, shards: Sequence[Object], which: NDArray[np.int32], starts: NDArray[np.int64],
        sizes: NDArray[np.int64], checksums: NDArray[np.int64],
    ) -> None:  # fmt: skip
        self.shards, self.which, self.starts, self.sizes, self.checksums = shards, which, starts, sizes, checksums
        far = any(shard.far for shard in shards)
        self._kept = Kept() if far else None
        self._ahead = Ahead(self._several, lambda place: int(sizes[place]), REQUESTS) if far else None

    def read(self, place: int) -> bytes:
        """Return the bytes of an image, which was fetched ahead or is read now; or raise `Broken`."""
        data = self._ahead.take(place) if self._ahead else None
        if data is None:
            data = self._range(self._shard(place), *self._span(place))
        if self.checksums[place] >= 0 and not checked(data, int(self.checksums[place])):
            raise Broken("not the checksum of its index: its shard is damaged or has changed")
        return data

    def prefetch(self, places: NDArray[np.int64]) -> None:
        """Begin to read the images that are far away, neighbours by one request, and return at once."""
        if self._ahead is not None:
            self._ahead.begin(places.tolist(), self._neighbours)

    def _neighbours(self, places: list[int]) -> Iterator[list[int]]:
        """Yield the places in groups that one request reads."""
        near: list[int] = []
        for place in sorted(places, key=lambda place: (int(self.which[place]), int(self.starts[place]))):
            start, stop = self._span(place)
            if near and (
                self.which[place] != self.which[near[0]]
                or start - self._span(near[-1])[1] > GAP
                or stop - self._span(near[0])[0] > TOGETHER
            ):
                yield near
                near = []
            near.append(place)
        if near:
            yield near

    def _several(self, near: Sequence[int]) -> dict[int, bytes]:
        """Return the bytes of neighbours in a shard."""
        shard, first = self._shard(near[0]), self._span(near[0])[0]
        if len(near) == 1:
            return {near[0]: self._range(shard, *self._span(near[0]))}
        spans = {place: self._span(place) for place in near}
        found = {place: self._known(shard, *span) for place, span in spans.items()}
        if None in found.values():
            whole = shard.read(first, self._span(near[-1])[1])
            for place, (start, stop) in spans.items():
                found[place] = whole[start - first : stop - first]
                self._keep(shard, start, found[place])
        return {place: data for place, data in found.items() if data is not None}

    def _range(self, shard: Object, start: int, stop: int) -> bytes:
        data = self._known(shard, start, stop)
        if data is None:
            data = shard.read(start, stop)
            self._keep(shard, start, data)
        return data

    def _known(self, shard: Object, start: int, stop: int) -> bytes | None:
        return self._kept.get(self._state(shard), start, stop) if self._kept and shard.far else None

    def _keep(self, shard: Object, start: int, data: bytes | None) -> None:
        if self._kept and shard.far and data is not None:
            self._kept.put(self._state(shard), start, data)

    def _state(self, shard: Object) -> str:
        return f"{shard.name}\0{shard.state}" if shard.state else ""

    def _shard(self, place: int) -> Object:
        return self.shards[int(self.which[place])]

    def _span(self, place: int) -> tuple[int, int]:
        start = int(self.starts[place])
        return start, start + int(self.sizes[place])
