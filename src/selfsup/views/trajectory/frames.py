"""What all views of episodes share: which moment a sample is, and frames drawn as an encoder takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfsup.base import buffers
from selfsup.data.image.decode import to_channels
from selfsup.data.spans import Spans
from selfsup.data.trajectory.episodes import Episodes
from selfsup.errors import UserError
from selfsup.source import Broken, Source
from selfsup.spec import Spec, TrajectorySpec
from selfsup.task import Batch
from selfsup.views.image.crop import Crop
from selfsup.views.image.draw import Places, color_params, draws, places
from selfsup.views.image.views import engine, scaling
from selfsup.views.random import uniform
from selfsup.views.reading import normalized

TIME = 7 << 24  # first column of the draws in time, behind those of images, clips and tracks


class Moments:
    """The moments that the samples of a source are: episodes, or spans of them, as a spec has them."""

    def __init__(self, source: Source, spec: Spec) -> None:
        self.spans = source.conform(spec)
        found = self.spans.source if isinstance(self.spans, Spans) else self.spans
        if not isinstance(found, Episodes):
            raise UserError(f"{source.name} holds no episodes")
        self.episodes: Episodes = found

    def range(self, index: int) -> tuple[int, int, int]:
        """Return the episode of a sample, its first observation, and the one behind its last."""
        if isinstance(self.spans, Spans):
            return int(self.spans.owners[index]), int(self.spans.starts[index]), int(self.spans.stops[index])
        return index, 0, self.episodes.extent(index)

    def middle(self, index: int) -> tuple[int, int]:
        """Return the episode of a sample, and the observation in its middle."""
        episode, start, stop = self.range(index)
        return episode, start + max(0, stop - start - 1) // 2

    def drawn(self, index: int, length: int, seed: int, epoch: int) -> tuple[int, int]:
        """Return the episode of a sample, and the first of `length` observations in it, drawn at random.

        Raises `Broken` for a sample that is shorter.
        """
        episode, start, stop = self.range(index)
        room = stop - start - length + 1
        if room < 1:
            raise Broken(f"fewer than {length} observations")
        if room == 1:
            return episode, start
        return episode, start + int(uniform(seed, epoch, np.array([index]), 1, TIME)[0, 0] * room)


@dataclass(frozen=True)
class FrameViews:
    """What all views of episodes have: frames in a square, and of that a crop; the whole of it by default.

    Frames that are not square are squeezed: nothing is cut off. `output` as in `ImageViews`: uint8 or float32.
    """

    KEYS: ClassVar[tuple[str, ...]] = ()  # of the batch, which are observations

    spec: TrajectorySpec
    crop: Crop | None = None
    output: Literal["uint8", "float32"] = "uint8"

    def __post_init__(self) -> None:
        crop = self.crop
        if crop is not None and (crop.count > 1 or crop.warped or crop.rotated or crop.noise):
            raise UserError("frames have one crop each, without warps, rotations and noise")

    def for_device(self, device: torch.device | str) -> Self:
        """Return the same with the output that suits a device."""
        return replace(self, output="float32" if torch.device(device).type == "cpu" else "uint8")

    def finish(self, batch: Batch) -> Batch:
        """Return float32 observations, normalized by the spec. Floats stay as they are."""
        return dict(batch) | {key: normalized(batch[key], self.spec.image) for key in self.KEYS if key in batch}

    def numbers(self, first: int, last: int) -> NDArray[np.int64]:
        """Return the frames that observations `first` to `last` consist of; before the first one it is repeated."""
        return np.maximum(np.arange(first - self.spec.stack + 1, last + 1), 0)

    def drawn(
        self,
        frames: Sequence[NDArray[np.uint8]],
        indices: NDArray[np.int64],
        seed: int,
        epoch: int,
        place: int = 0,
        views: int = 1,
    ) -> NDArray[Any]:
        """Return frames, B times (T, H, W, 3), as (B, T, S, S, C) of the output.

        All frames of a sample have one draw, that of `place` of `views` of the samples `indices` (B,).
        """
        crop, side, many = self.crop or Crop(self.spec.size), self.spec.size, len(frames[0])
        u = draws(seed, epoch, indices, views)[:, place : place + 1]
        box, bounds, flip, black = places(crop, np.full((len(u), 2), side), u, seed, epoch, indices, place)
        color, dtype = color_params(crop, u), np.float32 if self.output == "float32" else np.uint8
        out = buffers.empty((len(u), many, crop.size, crop.size, self.spec.channels), dtype)
        shapes = np.array([one.shape[1:3] for one in frames])
        for shape in np.unique(shapes, axis=0):
            rows = np.flatnonzero((shapes == shape).all(1))
            pixels = to_channels(np.concatenate([frames[row] for row in rows.tolist()]), self.spec.channels)
            of = np.repeat(rows, many)  # the sample of each frame
            down, across = shape / side
            where = Places(
                box[of] * [down, across, down, across],
                np.rint(bounds[of] * [down, down, across, across]).astype(np.int64), flip[of], black,
            )  # fmt: skip
            made = out if len(rows) == len(out) else np.empty((len(rows), *out.shape[1:]), dtype)
            engine.render(
                pixels, np.arange(len(pixels)), where, crop.bicubic, color[of], *scaling(self.spec.frame, self.output),
                made.reshape(len(pixels), 1, *out.shape[2:]),
            )  # fmt: skip
            if made is not out:
                out[rows] = made
        return out

    def stacked(self, drawn: NDArray[Any]) -> Tensor:
        """Return frames (B, stack, S, S, C) as observations (B, stack · C, S, S), channels last in memory."""
        if drawn.shape[1] == 1:
            return torch.from_numpy(drawn[:, 0]).permute(0, 3, 1, 2)
        many, frames, side, _, channels = drawn.shape
        out = buffers.empty((many, side, side, frames * channels), drawn.dtype)
        pixel = np.dtype((np.void, channels * drawn.itemsize))  # copied as a whole, which is faster
        pixels = np.ascontiguousarray(drawn).view(pixel)[..., 0].transpose(0, 2, 3, 1)
        out.reshape(many, side, side, frames, channels).view(pixel)[..., 0] = pixels
        return torch.from_numpy(out).permute(0, 3, 1, 2)
