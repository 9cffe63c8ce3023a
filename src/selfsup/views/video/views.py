"""Views of videos: clips are cut in time, and all frames of a clip get the same crop, flip and colours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from selfsup.base import buffers
from selfsup.data.image.decode import to_channels
from selfsup.errors import UserError
from selfsup.source import Broken, Source
from selfsup.spec import ClipSpec
from selfsup.task import Batch, Fetched
from selfsup.views.image.crop import Crop
from selfsup.views.image.draw import Places, color_params, draws, places
from selfsup.views.image.views import engine, scaling
from selfsup.views.random import uniform
from selfsup.views.reading import normalized, of_samples, read_or_substitute

_TIME = 5 << 24  # first column of the draws in time, behind those of images


@dataclass(frozen=True)
class Cut:
    """`count` clips of `frames` frames, `step` frames apart, from one video.

    `at`: `random`, each anywhere; `moving`, each anywhere, in proportion to how much its frames move, so that clips
    that show nothing are rare; `even`, the middle of each of `count` equal parts, as evaluation reads a video; `start`,
    its first frames, of which the last is repeated where there are too few.
    """

    frames: int
    step: int = 1
    count: int = 1
    at: Literal["random", "moving", "even", "start"] = "random"

    @property
    def span(self) -> int:
        """The number of frames from the first to the last of a clip."""
        return (self.frames - 1) * self.step + 1

    def numbers(self, length: int, motion: NDArray[np.float32] | None, u: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the numbers of the frames (count, frames) in a video of `length`, from the draws `u` (count,).

        Evaluation reads shorter videos evenly, some frames several times. Raises `Broken` for one that is too short for
        a task.
        """
        room = length - self.span + 1
        if self.at == "start":
            return np.minimum(self.step * np.arange(self.frames), length - 1)[None]
        if self.at == "even":
            if room < 1:
                return np.tile(np.linspace(0, length - 1, self.frames).round().astype(np.int64), (self.count, 1))
            starts = ((np.arange(self.count) + 0.5) / self.count * (room - 1)).round().astype(np.int64)
        elif room < 1:
            raise Broken(f"fewer than {self.span} frames")
        elif self.at == "moving" and motion is not None:
            still = 1e-3 * np.arange(1, length + 1)  # a video that stands still is cut anywhere
            total = np.cumsum(motion.astype(np.float64)) + still
            weight = total[self.span - 1 :] - total[:room]
            below = np.cumsum(weight + 1e-9)
            starts = np.searchsorted(below, u * below[-1], "right").clip(0, room - 1)
        else:
            starts = (u * room).astype(np.int64)
        return starts[:, None] + self.step * np.arange(self.frames)


@dataclass(frozen=True)
class ClipViews:
    """Clips: one batch key a group, (B, T, C, H, W), or (B, N, T, C, H, W) where its cut has several.

    A group is a `Crop` in space, one draw for all frames of all clips of the group, and a `Cut` in time. Time is never
    reversed here: that would be a label.

    Further keys: `index` (B,) int64; with `labels` also `y` (B,) int64; with `noise` the keys `noise` (B,) int64 of
    `selfsup.nn.noise`. All are functions of (seed, epoch, index). `output` as in `ImageViews`: uint8 or float32.
    """

    spec: ClipSpec
    groups: Mapping[str, tuple[Crop, Cut]] = field(default_factory=dict)
    labels: bool = False
    noise: bool = False
    output: Literal["uint8", "float32"] = "uint8"

    def __post_init__(self) -> None:
        for crop, _ in self.groups.values():
            if crop.count > 1 or crop.warped or crop.rotated or crop.noise:
                raise UserError("clips have one crop each, without warps, rotations and noise")

    def for_device(self, device: torch.device | str) -> ClipViews:
        """Return the same with the output that suits a device."""
        return replace(self, output="float32" if torch.device(device).type == "cpu" else "uint8")

    def fetch(self, source: Source, indices: NDArray[np.int64], seed: int, epoch: int) -> Fetched:
        """Return a batch of len(indices); a video that cannot be read, or is too short, is replaced by another one."""
        source, count = source.conform(self.spec), len(indices)
        dtype = np.float32 if self.output == "float32" else np.uint8
        outs = {
            key: buffers.empty((count, cut.count, cut.frames, crop.size, crop.size, self.spec.channels), dtype)
            for key, (crop, cut) in self.groups.items()
        }
        used = np.empty(count, np.int64)
        skipped: list[tuple[int, str]] = []

        def read(index: int) -> list[NDArray[np.uint8]]:
            found, first = [], 0
            for _, cut in self.groups.values():
                u = uniform(seed, epoch, np.array([index]), cut.count, _TIME + first)[0]
                first += cut.count
                moving = getattr(source, "motion", None) if cut.at == "moving" else None
                numbers = cut.numbers(source.extent(index), moving(index) if moving else None, u)
                found.append(frames_of(source, index, numbers.reshape(-1)))
            return found

        for row, wanted in enumerate(indices.tolist()):
            clips, used[row], broken = read_or_substitute(source, wanted, seed, epoch, read)
            skipped += broken
            self._make(clips, used[row : row + 1], seed, epoch, [out[row] for out in outs.values()])
        batch = {"index": torch.from_numpy(used)}
        for key, (_, cut) in self.groups.items():
            made = torch.from_numpy(outs[key]).permute(0, 1, 2, 5, 3, 4)
            batch[key] = made if cut.count > 1 else made[:, 0]
        batch |= of_samples(source, used, seed, epoch, self.labels, self.noise)
        return Fetched(batch, tuple(skipped))

    def finish(self, batch: Batch) -> Batch:
        """Return float32 clips, normalized by the spec. Floats stay as they are."""
        return dict(batch) | {key: normalized(batch[key], self.spec.image) for key in self.groups}

    def _make(
        self, clips: list[NDArray[np.uint8]], index: NDArray[np.int64], seed: int, epoch: int, outs: list[NDArray[Any]]
    ) -> None:
        u = draws(seed, epoch, index, len(self.groups))
        for place, (frames, (crop, _), out) in enumerate(zip(clips, self.groups.values(), outs, strict=True)):
            pixels = to_channels(frames, self.spec.channels)
            shape, many, mine = np.array([pixels.shape[1:3]]), len(pixels), u[:, place : place + 1]
            box, bounds, flip, black = places(crop, shape, mine, seed, epoch, index, place)
            where = Places(np.repeat(box, many, 0), np.repeat(bounds, many, 0), np.repeat(flip, many, 0), black)
            color = np.repeat(color_params(crop, mine), many, 0)
            room = out.reshape(many, 1, crop.size, crop.size, -1)
            engine.render(
                pixels, np.arange(many), where, crop.bicubic, color, *scaling(self.spec.image, self.output), room
            )


def frames_of(source: Any, index: int, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return frames (T, H, W, C) by their numbers."""
    if hasattr(source, "frames"):
        found: NDArray[np.uint8] = source.frames(index, numbers)
        return found
    first = int(numbers.min())
    read: NDArray[np.uint8] = source.read(index, slice(first, int(numbers.max()) + 1))
    return read[numbers - first]
