"""What every source of episodes has: cameras that see the same moments, and what was done between them."""

from __future__ import annotations

import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from selfsup.base.notes import say_notes
from selfsup.errors import UserError, unknown
from selfsup.source import Annotations, Broken, Labels, source_repr
from selfsup.spec import Spec, TrajectorySpec
from selfsup.spec.image import MAX_SIZE

LARGEST = 84  # pixels a side of a frame by default, where the frames have more
STACK = 16  # frames of an observation, at most


class Steps(NamedTuple):
    """What is known of n observations besides their frames. A row is an observation.

    `action` (n, d) float32, or (n,) int64 from 0 on; `reward` (n,) float32 and `terminated` (n,) bool are those of the
    step from a row to the next one. What there is not is nan, an action of numbers -1; the last row leads nowhere, and
    is not used. `state` (n, S) float32 is that of the observation.
    """

    action: NDArray[np.float32] | NDArray[np.int64]
    reward: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    state: NDArray[np.float32]

    def part(self, rows: slice) -> Steps:
        """Return some of the rows."""
        return Steps(self.action[rows], self.reward[rows], self.terminated[rows], self.state[rows])

    @classmethod
    def joined(cls, parts: Sequence[Steps]) -> Steps:
        """Return the rows of several one after the other."""
        columns: list[Any] = [np.concatenate(column) for column in zip(*parts, strict=True)]
        return cls(*columns)


class Episodes(ABC):
    """A source of kind `trajectory`: its samples are episodes.

    `cameras`: their names, first the one that `read` and an encoder see. `action`: ("discrete", n), ("box", d) or
    ("none", 0). `states`: names of the columns of a state. `fps`: observations a second. `extents` (N,) int64: how many
    observations each episode has. `shape`: height and width of the frames, or of the first ones where they differ.
    """

    kind = "trajectory"
    name: str
    labels: Labels | None = None
    frame_labels: Annotations | None = None
    notes: tuple[str, ...] = ()
    cameras: tuple[str, ...]
    action: tuple[str, int]
    states: tuple[str, ...]
    fps: float
    extents: NDArray[np.int64]
    shape: tuple[int, int]
    __repr__ = source_repr

    def __len__(self) -> int:
        return len(self.extents)

    def extent(self, index: int) -> int:
        """Return the number of observations."""
        return int(self.extents[index])

    @abstractmethod
    def frames(self, index: int, numbers: NDArray[np.int64], camera: str) -> NDArray[np.uint8]:
        """Return frames (T, H, W, 3) of a camera by their numbers; only these are decoded. Raises `Broken`."""

    @abstractmethod
    def steps(self, index: int) -> Steps:
        """Return the actions, rewards and states of an episode. Raises `Broken`."""

    @abstractmethod
    def path(self, index: int) -> str:
        """Return the name by which a user knows the episode."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Return a short hash that changes with the data."""

    @abstractmethod
    def some(self, indices: NDArray[np.int64]) -> Self:
        """Return a copy that holds some of the episodes; `take` adds labels and extents."""

    def read(self, index: int, span: slice | None = None) -> NDArray[np.uint8]:
        """Return frames (T, H, W, 3) of the first camera, every one or those of a span with its step; or `Broken`."""
        return self.frames(index, np.arange(self.extent(index))[span or slice(None)], self.cameras[0])

    def all_steps(self) -> Steps:
        """Return the steps of all episodes one after the other; nothing is known of those of a broken one."""
        parts = []
        for index in range(len(self)):
            try:
                parts.append(self.steps(index))
            except Broken:
                parts.append(no_steps(self.extent(index), self.action, len(self.states)))
        return Steps.joined(parts)

    def spec(
        self,
        size: int | None = None,
        channels: int | None = None,
        stack: int | None = None,
        camera: str | None = None,
    ) -> TrajectorySpec:
        """Return what an encoder gets of these episodes.

        Args:
            size: Pixels per side to which a whole frame is resized, in [8, 4096]; by default the shorter side of the
                frames, at most 84.
            channels: Channels of a frame, 3 (the default) or 1 for grey.
            stack: Frames that an encoder sees at once, in channels, the newest one last; 1 by default, in [1, 16].
            camera: Name of the camera that an encoder sees where a task does not compare several; by default the first.

        Raises:
            UserError: For values out of their range, and for a camera that there is not.
        """
        if channels not in (None, 1, 3):
            raise UserError(f"episodes are read with 1 or 3 channels, not {channels}: give another --channels")
        for flag, value, least, most in (("size", size, 8, MAX_SIZE), ("stack", stack, 1, STACK)):
            if value is not None and not least <= value <= most:
                raise UserError(f"--{flag} is from {least} to {most:,}, not {value}")
        if camera is not None and camera not in self.cameras:
            raise unknown("camera", camera, self.cameras)
        cameras = self.cameras if camera is None else (camera, *(name for name in self.cameras if name != camera))
        side = size or max(8, min(LARGEST, *self.shape))
        return TrajectorySpec.of(side, channels or 3, stack or 1, cameras, self.action, self.states, self.fps)

    def conform(self, spec: Spec) -> Self:
        """Return the same episodes, seen by the camera of a spec, or by their only one.

        Raises `UserError` for a spec of another kind, and for a camera that there is not.
        """
        if not isinstance(spec, TrajectorySpec):
            raise UserError(f"{self.name} holds no {spec.samples}, which this encoder takes")
        wanted = spec.cameras[0]
        if wanted == self.cameras[0]:
            return self
        if wanted not in self.cameras:
            if len(self.cameras) > 1:
                raise UserError(
                    f"{self.name} has no camera {wanted!r}, which this encoder sees; it has {', '.join(self.cameras)}"
                )
            self.note(f"the camera {self.cameras[0]} is taken for {wanted}, which the encoder learned from")
            return self
        same = copy.copy(self)
        same.cameras = (wanted, *(name for name in self.cameras if name != wanted))
        return same

    def take(self, indices: NDArray[np.int64]) -> Self:
        """Return some of the episodes, with their labels, in the given order."""
        taken = self.some(indices)
        taken.extents = self.extents[indices]
        taken.labels = self.labels and self.labels.take(indices)
        taken.frame_labels = self.frame_labels and self.frame_labels.take(indices)
        return taken

    def note(self, line: str) -> None:
        """Say something about these episodes once."""
        if (line := f"{self.name}: {line}") not in self.notes:
            self.notes = (*self.notes, line)
        say_notes(self)

    def digest(self, *parts: bytes) -> str:
        """Return a hash of parts, of the extents and of the labels, for `fingerprint`."""
        digest = hashlib.blake2b(b"\0".join((*parts, self.extents.tobytes())), digest_size=8)
        for given in (self.labels, self.frame_labels):
            if given is not None:
                digest.update(given.digest())
        return digest.hexdigest()


def no_steps(count: int, action: tuple[str, int], states: int) -> Steps:
    """Return `count` rows of which nothing is known: numbers -1, the rest nan, terminated False."""
    kind, size = action
    actions = np.full(count, -1, np.int64) if kind == "discrete" else np.full((count, size), np.nan, np.float32)
    state = np.full((count, states), np.nan, np.float32)
    return Steps(actions, np.full(count, np.nan, np.float32), np.zeros(count, np.bool_), state)
