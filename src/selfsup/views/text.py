"""Views of text: windows of documents, pieces, and pairs of segments, framed by [CLS] and [SEP], padded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from selfsup.data import Source, TextSpec, tokens
from selfsup.errors import UserError
from selfsup.task import Batch
from selfsup.views.images import Fetched
from selfsup.views.random import keys, uniform

WINDOWS = 16  # of a document that evaluation reads


@dataclass(frozen=True)
class TextViews:
    """Token ids `x` (B, T) int64, padded to the longest sample of the batch; `index` (B,) int64.

    `what`: `windows`, the whole document in windows of `spec.size` tokens one after the other, at most 16 and the same
    number for all of the batch (T is then a multiple of the size); `one`, a window of it at a place drawn from (seed,
    epoch, index); `pairs`, [CLS] A [SEP] B [SEP] of a piece that is cut after one of its sentences, where B goes on
    after A or, by `swap`, is from another document. Then also `next` (B,) int64: 1, 0, or -1 for a piece that is one
    sentence and stands alone; `spans`, an anchor, and as `positive` (B, T') a shorter one near it, as DeCLUTR draws
    them. `short`: the share of samples cut to a length drawn below theirs. With `labels` also `y` (B,) int64; with
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
        some: Any = source
        rows = some.lie(self.spec.tokenizer)
        indices, skipped = _substitute(rows.stops - rows.starts, np.asarray(indices), seed, epoch, source.name)
        starts, stops = rows.starts[indices], rows.stops[indices]
        u = uniform(seed, epoch, indices, 12)
        batch: dict[str, torch.Tensor] = {"index": torch.from_numpy(indices)}
        if self.what == "windows":
            x = self._windows(rows.ids, starts, stops)
        elif self.what == "one":
            sizes = self._cut(np.minimum(stops - starts, self.spec.room), u)
            starts = starts + (u[:, 2] * (stops - starts - sizes + 1)).astype(np.int64)
            x = self._frame(rows.ids, (starts,), (sizes,))
        elif self.what == "spans":
            x, positive = self._spans(rows.ids, starts, stops, u)
            batch["positive"] = torch.from_numpy(positive)
        else:
            x, follows = self._pairs(some, rows.ids, indices, u)
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
        """Shorten a share of the samples to 2 tokens or more."""
        cut = np.minimum(sizes, 2 + (u[:, 1] * np.maximum(sizes - 2, 0)).astype(np.int64))
        return np.where(u[:, 0] < self.short, cut, sizes)

    def _windows(self, ids: NDArray[Any], starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[np.int64]:
        room = self.spec.room
        sizes = np.minimum(stops - starts, WINDOWS * room)
        many = -(-sizes // room)
        owner = np.repeat(np.arange(len(sizes)), many)
        place = np.arange(len(owner)) - np.repeat(np.cumsum(many) - many, many)
        x = self._frame(ids, (starts[owner] + place * room,), (np.minimum(sizes[owner] - place * room, room),))
        if many.max() == 1:
            return x
        wide = np.full((len(sizes), many.max(), self.spec.size), self.spec.pad, np.int64)
        wide[owner, place, : x.shape[1]] = x
        return wide.reshape(len(sizes), -1)

    def _frame(
        self, ids: NDArray[Any], starts: tuple[NDArray[np.int64], ...], sizes: tuple[NDArray[np.int64], ...]
    ) -> NDArray[np.int64]:
        """Return [CLS] segment [SEP] segment [SEP] …, padded; no [SEP] after an empty segment."""
        total = 1 + np.sum([size + (size > 0) for size in sizes], 0)
        x = np.full((len(total), total.max()), self.spec.pad, np.int64)
        x[:, 0] = self.spec.cls
        begin = np.ones(len(total), np.int64)
        for start, size in zip(starts, sizes, strict=True):
            row, inside = _ragged(size)
            x[row, begin[row] + inside] = ids[start[row] + inside]
            some = np.flatnonzero(size)
            x[some, (begin + size)[some]] = self.spec.sep
            begin = begin + size + (size > 0)
        return x

    def _spans(
        self, ids: NDArray[Any], starts: NDArray[np.int64], stops: NDArray[np.int64], u: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return anchors and positives: Beta(4, 2) and Beta(2, 4) are the 4th and the 2nd smallest of five uniforms."""
        least, room = max(1, self.spec.room // 16), self.spec.room
        shares = np.sort(u[:, :5])[:, 3], np.sort(u[:, 5:10])[:, 1]
        long, near = (
            np.minimum(least + (share * (room - least + 1)).astype(np.int64), stops - starts) for share in shares
        )
        anchor = starts + (u[:, 10] * (stops - starts - long + 1)).astype(np.int64)
        low, high = np.maximum(anchor - near, starts), np.minimum(anchor + long, stops - near)
        positive = low + (u[:, 11] * (high - low + 1)).astype(np.int64)
        return self._frame(ids, (anchor,), (long,)), self._frame(ids, (positive,), (near,))

    def _pairs(
        self, source: Any, ids: NDArray[Any], indices: NDArray[np.int64], u: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        starts = source.starts[indices]
        sizes = self._cut(np.minimum(source.stops[indices] - starts, self.spec.room - 1), u)
        first = self._after_sentence(ids, starts, sizes, u[:, 2])
        second = sizes - first
        # B of another document begins after a sentence of it too, or where it begins would give it away
        other = _elsewhere(source.document, indices, u[:, 4])
        stops = np.minimum(source.stops[other], source.starts[other] + self.spec.room)
        from_other = source.starts[other] + self._after_sentence(
            ids, source.starts[other], stops - source.starts[other], u[:, 5]
        )
        left = source.document_stops[other] - from_other
        swapped = (u[:, 3] < self.swap) & (second > 0) & (left > 0) & (other != indices)
        begin = np.where(swapped, from_other, starts + first)
        second = np.where(swapped, np.minimum(second, left), second)
        follows = np.where(second == 0, -1, np.where(swapped, 0, 1))
        return self._frame(ids, (starts, begin), (first, second)), follows

    def _after_sentence(
        self, ids: NDArray[Any], starts: NDArray[np.int64], sizes: NDArray[np.int64], u: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """Return after how many tokens a sentence ends and another begins, any such place; all tokens for none."""
        row, inside = _ragged(sizes)
        ends = tokens.tables(self.spec.tokenizer)[0][ids[starts[row] + inside]] & (inside < sizes[row] - 1)
        before = np.concatenate([[0], np.cumsum(ends)])
        edges = np.concatenate([[0], np.cumsum(sizes)])
        count = before[edges[1:]] - before[edges[:-1]]
        wanted = before[edges[:-1]] + (u * count).astype(np.int64)
        places = np.flatnonzero(ends)
        if not len(places):
            return sizes
        found = inside[places[np.minimum(wanted, len(places) - 1)]] + 1
        return np.where(count > 0, found, sizes)


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


def _substitute(
    sizes: NDArray[np.int64], indices: NDArray[np.int64], seed: int, epoch: int, name: str
) -> tuple[NDArray[np.int64], tuple[tuple[int, str], ...]]:
    empty = sizes[indices] == 0
    if not empty.any():
        return indices.astype(np.int64), ()
    full = np.flatnonzero(sizes)
    drawn = (uniform(seed, epoch, ~indices, 1)[:, 0] * len(full)).astype(np.int64)
    skipped = tuple((int(index), "empty") for index in indices[empty])
    return np.where(empty, full[drawn], indices).astype(np.int64), skipped
