"""Spans of longer samples as samples of their own: pieces of documents, windows of recordings, clips of videos."""

from __future__ import annotations

import copy
import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfsup.source import Labels, Source, source_repr
from selfsup.spec import Spec


class Spans:
    """Sample i is `source.read(owners[i], slice(starts[i], stops[i]))`, in the order of the source.

    `owners`, `starts` and `stops` (N,) int64: the samples and their ranges, in the units of the source's `extent`.
    `lengths` (N,) lets the loader put samples of similar length into a batch. Spans have no labels.
    """

    labels: Labels | None = None
    __repr__ = source_repr

    def __init__(
        self, source: Source, owners: NDArray[np.int64], starts: NDArray[np.int64], stops: NDArray[np.int64]
    ) -> None:
        self.source, self.name, self.kind = source, source.name, source.kind
        self.owners, self.starts, self.stops = owners, starts, stops

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The length of each span."""
        return self.stops - self.starts

    def __len__(self) -> int:
        return len(self.owners)

    def extent(self, index: int) -> int:
        """Return the length of the span."""
        return int(self.stops[index] - self.starts[index])

    def read(self, index: int, span: slice | None = None) -> Any:
        """Return the span, or a part of it."""
        start, stop, _ = (span or slice(None)).indices(self.extent(index))
        first = int(self.starts[index])
        return self.source.read(int(self.owners[index]), slice(first + start, first + max(start, stop)))

    def path(self, index: int) -> str:
        """Return the path of its sample, and its start."""
        return f"{self.source.path(int(self.owners[index]))}:{self.starts[index]}"

    def spec(self) -> Spec:
        """Return the spec of the source."""
        return self.source.spec()

    def conform(self, spec: Spec) -> Spans:
        """Return the same spans, which are already in the units of a spec. Raises `UserError` for another spec."""
        self.source.conform(spec)
        return self

    def take(self, indices: NDArray[np.int64]) -> Spans:
        """Return some of the spans."""
        taken = copy.copy(self)
        taken.owners, taken.starts, taken.stops = (part[indices] for part in (self.owners, self.starts, self.stops))
        return taken

    def fingerprint(self) -> str:
        """Return a hash of the source and the spans."""
        digest = hashlib.blake2b(self.source.fingerprint().encode(), digest_size=8)
        for part in (self.owners, self.starts, self.stops):
            digest.update(part.tobytes())
        return digest.hexdigest()
