"""Episodes of other tools' files: their rows in memory, their frames where they are."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from selfsup.data.trajectory.episodes import Episodes, Steps, no_steps
from selfsup.errors import UserError
from selfsup.source import Broken, Labels


class Found(NamedTuple):
    """What a file says of an episode. `seen`: for each camera how many frames, their height and width.

    `rows`: action, reward, terminated and state, each an array of a row an observation, or without the last one; or
    None.
    """

    seen: Mapping[str, tuple[int, int, int]]
    rows: Sequence[NDArray[Any] | None]
    label: str | None = None


class Foreign(Episodes):
    """Episodes that another tool wrote. What does not fit the first one is left out, and counted in the notes.

    `paths`: the names of all; `read(path)` returns what a file says, or raises `Broken`. Raises `UserError` for none
    that can be read.
    """

    def __init__(
        self,
        name: str,
        paths: Iterable[str],
        read: Callable[[str], Found],
        fps: float = 1.0,
        states: tuple[str, ...] | None = None,
    ) -> None:
        self.name, self.fps, self.notes = name, fps, ()
        left, odd = Counter[str](), Counter[str]()
        kept: list[tuple[str, int, Steps, str | None]] = []
        first: Found | None = None
        for path in paths:
            try:
                found = read(path)
                if first is None:
                    self._begin(found, states)
                steps = self._rows(found, odd)
            except Broken as error:
                left[str(error)] += 1
                continue
            first = first or found
            kept.append((path, len(steps.reward), steps, found.label))
        if not kept:
            told = f": {left.most_common(1)[0][0]}" if left else ""
            raise UserError(f"{name} holds no episode that can be read{told}")
        self.paths, lengths, rows, labels = (list(column) for column in zip(*kept, strict=True))
        self.extents, self.rows = np.array(lengths, np.int64), Steps.joined(rows)
        if self.action[0] == "discrete":
            self.action = "discrete", int(self.rows.action.max(initial=-1)) + 1
        self.firsts, self.numbers = self.extents.cumsum() - self.extents, np.arange(len(kept))
        if any(label is not None for label in labels):
            self.labels = Labels.of(labels)
        for counts, what in ((left, "are left out"), (odd, "are read nevertheless")):
            if counts:
                told = ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common(4))
                total = len(kept) + left.total()
                self.notes += (f"{name}: {counts.total():,} of {total:,} episodes {what}: {told}",)

    def _begin(self, found: Found, states: tuple[str, ...] | None) -> None:
        """Take what all episodes share from the first one."""
        if not found.seen:
            raise Broken("no frames (uint8)")
        self.cameras, self.shape = tuple(found.seen), next(iter(found.seen.values()))[1:]
        action, state = found.rows[0], found.rows[3]
        self.action = _space(action)
        count = 0 if state is None else int(np.prod(np.shape(state)[1:], dtype=int))
        named = states is not None and len(states) == count
        self.states = states if states and named else tuple(f"state{place}" for place in range(count))

    def _rows(self, found: Found, odd: Counter[str]) -> Steps:
        """Return the rows of an episode that fits the first one. Raises `Broken` for another."""
        if set(found.seen) != set(self.cameras):
            raise Broken("with other cameras than the first")
        counts = {seen[0] for seen in found.seen.values()}
        count = min(counts)
        if count < 1:
            raise Broken("empty")
        if len(counts) > 1:
            odd["whose cameras differ in length: up to the end of the shortest"] += 1
        kind, size = self.action
        rows = no_steps(count, self.action, len(self.states))
        action = found.rows[0]
        if action is None:
            if kind != "none":
                odd["without actions"] += 1
        elif (space := _space(action))[0] != kind or (kind == "box" and space[1] != size):
            raise Broken("with another action space than the first")
        for name, out, values in zip(Steps._fields, rows, found.rows, strict=True):
            if values is None or not out.size:
                continue
            if len(values) < max(counts) - 1 or np.size(values) != len(values) * np.prod(out.shape[1:], dtype=int):
                raise Broken(f"with {name} of the shape {np.shape(values)} for {max(counts)} frames")
            out[: len(values)] = np.reshape(values, (-1, *out.shape[1:]))[:count]
        return rows

    @abstractmethod
    def seen(self, number: int, numbers: NDArray[np.int64], camera: str) -> NDArray[np.uint8]:
        """Return frames (T, H, W[, C]) of the episode `paths[number]`, or raise `Broken`."""

    def frames(self, index: int, numbers: NDArray[np.int64], camera: str) -> NDArray[np.uint8]:
        """Return frames (T, H, W, 3) of a camera by their numbers, or raise `Broken`."""
        found = self.seen(int(self.numbers[index]), numbers, camera)
        found = found[..., None] if found.ndim == 3 else found
        return np.repeat(found, 3, 3) if found.shape[3] == 1 else found[..., :3]

    def steps(self, index: int) -> Steps:
        """Return the rows of an episode."""
        first = int(self.firsts[self.numbers[index]])
        return self.rows.part(slice(first, first + self.extent(index)))

    def path(self, index: int) -> str:
        """Return the file or the number of the episode."""
        return self.paths[self.numbers[index]]

    def some(self, indices: NDArray[np.int64]) -> Self:
        """Return a copy with some of the episodes."""
        same = copy.copy(self)
        same.numbers = self.numbers[indices]
        return same

    def fingerprint(self) -> str:
        """Return a hash of the names of the episodes and of their rows, but not of their frames."""
        names = "\0".join(self.paths[number] for number in self.numbers.tolist())
        return self.digest(names.encode(errors="surrogateescape"), *(column.tobytes() for column in self.rows))


def _space(action: NDArray[Any] | None) -> tuple[str, int]:
    if action is None:
        return "none", 0
    width = int(np.prod(np.shape(action)[1:], dtype=int))
    if action.dtype.kind in "iub" and width == 1:
        return "discrete", 0
    if action.dtype.kind not in "iubf":
        raise Broken(f"with actions of {action.dtype}")
    return "box", width


def is_frames(shape: tuple[int, ...], dtype: Any) -> bool:
    """Return whether an array holds frames (n, H, W[, 1, 3 or 4]) uint8."""
    return np.dtype(dtype) == np.uint8 and (len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3, 4)))
