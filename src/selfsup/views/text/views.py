"""Views of text: windows of documents, pieces, and pairs of segments, framed by [CLS] and [SEP], padded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from selfsup.data.spans import Spans
from selfsup.errors import UserError
from selfsup.source import Source
from selfsup.spec import TextSpec, tokenizer
from selfsup.task import Batch, Fetched
from selfsup.views.random import keys, uniform
from selfsup.views.reading import substitute_empty

WINDOWS = 16  # of a document that evaluation reads


@dataclass(frozen=True)
class TextViews:
    """Token ids `x` (B, T) int64, padded to the longest sample of the batch; `index` (B,) int64.

    `what`: `windows`, the whole document in windows of `spec.size` tokens one after the other, at most 16 and the same
    number for all of the batch (T is then a multiple of the size); `one`, a window of it at a place drawn from (seed,
    epoch, index); `pairs`, [CLS] A [SEP] B [SEP] of a piece that is cut after one of its sentences, where B continues
    A or, with probability `swap`, is from another document. Then also `next` (B,) int64: 1, 0, or -1 for a piece that
    is one sentence and stands alone; `spans`, an anchor, and as `positive` (B, T') a shorter one near it, as DeCLUTR
    draws them. `short`: the fraction of samples cut to a random shorter length. With `labels` also `y` (B,) int64; with
    `noise` also `noise` (B,) int64, the keys of `selfsup.nn.noise`.
    """

    spec: TextSpec
    what: Literal["windows", "one", "pairs", "spans"] = "windows"
    swap: float = 0.0
    short: float = 0.0
    noise: bool = False
    labels: bool = False

    def for_device(self, device: torch.device) -> TextViews:
        """Return the same: tokens are small on any device."""
        return self

    def fetch(self, source: Source, indices: NDArray[np.int64], seed: int, epoch: int) -> Fetched:
        """Return a batch of len(indices); a document without tokens is replaced by another one."""
        source = source.conform(self.spec)
        indices, skipped = substitute_empty(source, np.asarray(indices), seed, epoch)
        sizes = np.array([source.extent(index) for index in indices.tolist()], np.int64)
        u = uniform(seed, epoch, indices, 12)
        batch: dict[str, torch.Tensor] = {"index": torch.from_numpy(indices)}
        if self.what == "windows":
            x = self._windows(source, indices, sizes)
        elif self.what == "one":
            wanted = self._cut(np.minimum(sizes, self.spec.room), u)
            starts = (u[:, 2] * (sizes - wanted + 1)).astype(np.int64)
            x = self._frame(_read(source, indices, starts, wanted))
        elif self.what == "spans":
            x, positive = self._spans(source, indices, sizes, u)
            batch["positive"] = torch.from_numpy(positive)
        else:
            x, follows = self._pairs(source, indices, sizes, u)
            batch["next"] = torch.from_numpy(follows)
        batch["x"] = torch.from_numpy(x)
        if self.noise:
            batch["noise"] = torch.from_numpy(keys(seed, epoch, indices))
        if self.labels:
            if source.labels is None:
                raise UserError(f"{source.name} has no labels; give them with labels=")
            batch["y"] = torch.from_numpy(source.labels.ids[indices])
        return Fetched(batch, skipped)

    def finish(self, batch: Batch) -> Batch:
        """Return the batch as it is."""
        return batch

    def _cut(self, sizes: NDArray[np.int64], u: NDArray[np.float64]) -> NDArray[np.int64]:
        """Shorten a fraction of the samples to 2 tokens or more."""
        cut = np.minimum(sizes, 2 + (u[:, 1] * np.maximum(sizes - 2, 0)).astype(np.int64))
        return np.where(u[:, 0] < self.short, cut, sizes)

    def _windows(self, source: Source, indices: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
        room = self.spec.room
        read = _read(source, indices, np.zeros_like(sizes), np.minimum(sizes, WINDOWS * room))
        many = -(-read.sizes // room)
        owner = np.repeat(np.arange(len(sizes)), many)
        place = np.arange(len(owner)) - np.repeat(np.cumsum(many) - many, many)
        size = np.minimum(read.sizes[owner] - place * room, room)
        x = self._frame(_Segments(read.ids, read.starts[owner] + place * room, size))
        if many.max() == 1:
            return x
        wide = np.full((len(sizes), many.max(), self.spec.size), self.spec.pad, np.int64)
        wide[owner, place, : x.shape[1]] = x
        return wide.reshape(len(sizes), -1)

    def _frame(self, *segments: _Segments) -> NDArray[np.int64]:
        """Return [CLS] segment [SEP] segment [SEP] …, padded; no [SEP] after an empty segment."""
        total = 1 + np.sum([part.sizes + (part.sizes > 0) for part in segments], 0)
        x = np.full((len(total), total.max()), self.spec.pad, np.int64)
        x[:, 0] = self.spec.cls
        begin = np.ones(len(total), np.int64)
        for ids, start, size in segments:
            row, inside = _ragged(size)
            x[row, begin[row] + inside] = ids[start[row] + inside]
            some = np.flatnonzero(size)
            x[some, (begin + size)[some]] = self.spec.sep
            begin = begin + size + (size > 0)
        return x

    def _spans(
        self, source: Source, indices: NDArray[np.int64], sizes: NDArray[np.int64], u: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return anchors and positives: Beta(4, 2) and Beta(2, 4) are the 4th and the 2nd smallest of five uniforms."""
        shortest, room = max(1, self.spec.room // 16), self.spec.room
        ratios = np.sort(u[:, :5])[:, 3], np.sort(u[:, 5:10])[:, 1]
        long, near = (
            np.minimum(shortest + (ratio * (room - shortest + 1)).astype(np.int64), sizes) for ratio in ratios
        )
        anchor = (u[:, 10] * (sizes - long + 1)).astype(np.int64)
        low, high = np.maximum(anchor - near, 0), np.minimum(anchor + long, sizes - near)
        positive = low + (u[:, 11] * (high - low + 1)).astype(np.int64)
        return (
            self._frame(_read(source, indices, anchor, long)),
            self._frame(_read(source, indices, positive, near)),
        )

    def _pairs(
        self, source: Source, indices: NDArray[np.int64], sizes: NDArray[np.int64], u: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if not isinstance(source, Spans):
            raise UserError(f"{source.name} is not cut into pieces, of which pairs of segments are made")
        piece = _read(source, indices, np.zeros_like(sizes), self._cut(np.minimum(sizes, self.spec.room - 1), u))
        first = self._after_sentence(piece, u[:, 2])
        second = piece.sizes - first
        # B of another document begins after a sentence of it too, or its beginning would give it away
        other = _elsewhere(source.owners, indices, u[:, 4])
        there = np.minimum(source.lengths[other], self.spec.room)
        begin = self._after_sentence(_read(source, other, np.zeros_like(there), there), u[:, 5])
        begin += source.starts[other]
        owners = source.owners[other]
        left = np.array([source.source.extent(owner) for owner in owners.tolist()], np.int64) - begin
        swapped = (u[:, 3] < self.swap) & (second > 0) & (left > 0) & (other != indices)
        follows = np.where(second == 0, -1, np.where(swapped, 0, 1))
        foreign = _read(source.source, owners, begin, np.where(swapped, np.minimum(second, left), 0))
        own = _Segments(piece.ids, piece.starts + first, np.where(swapped, 0, second))
        a = _Segments(piece.ids, piece.starts, first)
        b = _Segments(
            np.concatenate([own.ids, foreign.ids]),
            np.where(swapped, len(own.ids) + foreign.starts, own.starts),
            np.where(swapped, foreign.sizes, own.sizes),
        )
        return self._frame(a, b), follows

    def _after_sentence(self, piece: _Segments, u: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return after how many tokens a sentence ends and another begins, any such place; all tokens for none."""
        ids, starts, sizes = piece
        row, inside = _ragged(sizes)
        ends = tokenizer.tables(self.spec.tokenizer)[0][ids[starts[row] + inside]] & (inside < sizes[row] - 1)
        before = np.concatenate([[0], np.cumsum(ends)])
        edges = np.concatenate([[0], np.cumsum(sizes)])
        count = before[edges[1:]] - before[edges[:-1]]
        wanted = before[edges[:-1]] + (u * count).astype(np.int64)
        places = np.flatnonzero(ends)
        if not len(places):
            return sizes.copy()
        found = inside[places[np.minimum(wanted, len(places) - 1)]] + 1
        return np.where(count > 0, found, sizes)


class _Segments(NamedTuple):
    """Segment r is ids[starts[r] : starts[r] + sizes[r]]."""

    ids: NDArray[np.int64]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]


def _read(source: Source, indices: NDArray[np.int64], starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> _Segments:
    """Return a span of each sample; nothing else of them is read."""
    places = zip(indices.tolist(), starts.tolist(), sizes.tolist(), strict=True)
    ids = [source.read(index, slice(start, start + size)) for index, start, size in places]
    return _Segments(np.concatenate(ids), np.cumsum(sizes) - sizes, sizes)


def _ragged(sizes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return for every token of rows of these sizes its row and its place in it."""
    row = np.repeat(np.arange(len(sizes)), sizes)
    return row, np.arange(len(row)) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def _elsewhere(document: NDArray[np.int64], indices: NDArray[np.int64], u: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return for each piece one of another document, each with the same probability; itself where there is none."""
    low, high = (np.searchsorted(document, document[indices], side) for side in ("left", "right"))
    outside = len(document) - (high - low)
    drawn = (u * outside).astype(np.int64)
    return np.where(outside > 0, drawn + np.where(drawn >= low, high - low, 0), indices)
