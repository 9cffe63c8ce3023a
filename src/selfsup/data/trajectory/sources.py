"""The source of our own recordings: shards, of which any frame of any camera is read at once."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from selfsup.data.trajectory.episodes import Episodes, Steps, no_steps
from selfsup.data.trajectory.writing import read_about, read_shards
from selfsup.data.video.store import Damaged, Frames
from selfsup.errors import UserError
from selfsup.source import Broken, Labels

OPEN = 256  # shards whose frames are kept open, and whose steps in memory


class _Place(NamedTuple):
    """Where episodes are: shard (N,), number of its first row in the shard (N,), number of the episode (N,)."""

    shards: NDArray[np.int64]
    rows: NDArray[np.int64]
    numbers: NDArray[np.int64]


class Trajectories(Episodes):
    """Episodes of a folder that `write_shards` wrote; with `shards`, of those alone (the first ones of `read_shards`).

    Raises `UserError` for a folder that is none, that is damaged, or whose shards hold no episode.
    """

    _place: _Place

    def __init__(
        self, folder: str | Path, name: str | None = None, shards: Sequence[Mapping[str, Any]] | None = None
    ) -> None:
        self.folder, self.name = Path(folder), name or str(folder)
        self._prefix = os.path.join(folder, "shard-")  # whole strings: thousands are made a second
        about = read_about(self.folder)
        if about is None:
            raise UserError(f"{folder} holds no trajectories.json: it is not a recording")
        shards = read_shards(self.folder) if shards is None else shards
        self.cameras = self._recorded = tuple(about["cameras"])
        self.states = tuple(about["states"])
        kind, size = about["action"]
        self.action, self.fps = (kind, size), float(about["fps"])
        self._digests: list[Mapping[str, str]] = []
        if not shards or not len(whole := self._open(shards)):
            raise UserError(f"{folder} holds no episodes: record some with selfsup record")
        if whole["label"].null_count < len(whole):
            self.labels = Labels.of(whole["label"].combine_chunks().cast(pa.large_binary()))
        self.shape = next((high, wide) for high, wide in (shard["shape"] for shard in shards) if high)
        dropped = sum(sum(shard["dropped"].values()) for shard in shards)
        if dropped:
            some = next(reason for shard in shards for reason in shard["dropped"])
            self.notes = (f"{self.name}: {dropped:,} episodes were dropped when they were recorded, such as: {some}",)

    def grow(self, shards: Sequence[Mapping[str, Any]]) -> None:
        """Take in the shards that follow those that were opened; their labels are not read.

        Of a whole source: one that `take` has made holds some episodes for good.
        """
        before, extents = self._place, self.extents
        if not shards:
            return
        self._open(shards)
        self._place = _Place(*(np.concatenate(parts) for parts in zip(before, self._place, strict=True)))
        self.extents = np.concatenate([extents, self.extents])

    def _open(self, shards: Sequence[Mapping[str, Any]]) -> pa.Table:
        """Set the places of the episodes of the next shards, and return what is known of each."""
        first = len(self._digests)
        files = [f"{self._prefix}{place:05}/episodes.parquet" for place in range(first, first + len(shards))]
        tables = [_episodes(Path(file)) for file in files]
        whole, lengths = pa.concat_tables(tables), [table["length"].to_numpy() for table in tables]
        self.extents = whole["length"].to_numpy().astype(np.int64)
        place = np.repeat(np.arange(first, first + len(tables)), [len(part) for part in lengths])
        ends = np.concatenate([part.cumsum() for part in lengths])
        self._place = _Place(place, ends - self.extents, whole["number"].to_numpy().astype(np.int64))
        self._digests = [*self._digests, *(shard["digests"] for shard in shards)]
        return whole

    def frames(self, index: int, numbers: NDArray[np.int64], camera: str) -> NDArray[np.uint8]:
        """Return frames (T, H, W, 3) of a camera by their numbers, or raise `Broken`."""
        shard = self._shard(index)
        try:
            return _frames(shard, self._recorded.index(camera)).read(self._place.rows[index] + numbers)
        except Damaged as error:
            raise Broken(f"{os.path.basename(shard)}: {error}") from None

    def steps(self, index: int) -> Steps:
        """Return the rows of an episode. Raises `Broken`."""
        file, first = self._shard(index), int(self._place.rows[index])
        whole = _steps(file, self._digests[self._place.shards[index]]["steps.parquet"], self.action, len(self.states))
        return whole.part(slice(first, first + self.extent(index)))

    def _shard(self, index: int) -> str:
        return f"{self._prefix}{self._place.shards[index]:05}"

    def path(self, index: int) -> str:
        """Return the number of the episode in its recording."""
        return str(self._place.numbers[index])

    def some(self, indices: NDArray[np.int64]) -> Self:
        """Return a copy with some of the episodes."""
        same = copy.copy(self)
        same._place = _Place(*(part[indices] for part in self._place))
        return same

    def fingerprint(self) -> str:
        """Return a hash of the digests of the shards, and of which episodes these are."""
        return self.digest(repr(self._digests).encode(), self._place.numbers.tobytes())


@lru_cache(OPEN)
def _frames(shard: str, camera: int) -> Frames:
    return Frames(Path(shard) / f"camera-{camera}.arrow")


def _episodes(file: Path) -> pa.Table:
    try:
        return pq.read_table(file)
    except (OSError, pa.ArrowException):
        raise UserError(f"{file} cannot be read") from None


@lru_cache(OPEN)
def _steps(shard: str, digest: str, action: tuple[str, int], states: int) -> Steps:
    """Return the rows of a shard; what it has no column of is empty."""
    try:
        content = Path(shard, "steps.parquet").read_bytes()
        if hashlib.blake2b(content, digest_size=16).hexdigest() != digest:
            raise Broken(f"{os.path.basename(shard)}: its steps are damaged")
        table = pq.read_table(pa.BufferReader(content)).combine_chunks()
    except (OSError, pa.ArrowException):
        raise Broken(f"{os.path.basename(shard)}: its steps are damaged") from None
    found: list[Any] = []
    for name, empty in zip(Steps._fields, no_steps(table.num_rows, action, states), strict=True):
        if name not in table.column_names:
            found.append(empty)
            continue
        column = table[name].combine_chunks()
        flat = column.flatten() if pa.types.is_fixed_size_list(column.type) else column
        found.append(flat.to_numpy(zero_copy_only=False).reshape(empty.shape).astype(empty.dtype, copy=False))
    return Steps(*found)
