"""What all views of episodes share: which moment a sample is, and frames drawn as an encoder takes them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfsup.base import buffers
from selfsup.data.image.decode import to_channels
from selfsup.data.spans import Spans
from selfsup.data.trajectory.episodes import Episodes
from selfsup.errors import UserError
from selfsup.nn.constants import mean_std
from selfsup.source import Broken, Source
from selfsup.spec import Spec, TrajectorySpec
from selfsup.views.image.crop import Crop
from selfsup.views.image.draw import Places, color_params, places
from selfsup.views.image.views import engine, scaling
from selfsup.views.random import uniform

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
        return episode, start + int(uniform(seed, epoch, np.array([index]), 1, TIME)[0, 0] * room)


class Look(NamedTuple):
    """How frames are drawn: the whole frame in a square, and of that a crop, one draw for all frames of a sample."""

    spec: TrajectorySpec
    crop: Crop
    output: str

    def room(self, *shape: int) -> NDArray[Any]:
        """Return an empty array (*shape, size, size, stack · C) of the output, channels last."""
        spec, size = self.spec, self.crop.size
        dtype = np.float32 if self.output == "float32" else np.uint8
        return buffers.empty((*shape, size, size, spec.stack * spec.channels), dtype)

    def numbers(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the frames (M, stack) of observations (M,): the oldest first, the first one of the episode again."""
        return np.maximum(times[:, None] - np.arange(self.spec.stack)[::-1], 0)

    def draw(
        self, frames: NDArray[np.uint8], u: NDArray[np.float64], index: int, seed: int, epoch: int
    ) -> NDArray[Any]:
        """Return frames (T, H, W, 3) as (T, size, size, C) of the output, from the draws `u` (17,) of their place."""
        pixels, size, rows = to_channels(frames, self.spec.channels), self.crop.size, u[None, None]
        square = np.array([[self.spec.size, self.spec.size]])
        box, bounds, flip, black = places(self.crop, square, rows, seed, epoch, np.array([index]), 0)
        scale = np.array(pixels.shape[1:3])[[0, 1]] / self.spec.size  # frames are squeezed: nothing is cut off
        box = box * scale[[0, 1, 0, 1]]
        bounds = np.rint(bounds * scale[[0, 0, 1, 1]]).astype(np.int64)
        many = len(pixels)
        where = Places(np.repeat(box, many, 0), np.repeat(bounds, many, 0), np.repeat(flip, many, 0), black)
        color = np.repeat(color_params(self.crop, rows), many, 0)
        out = np.empty((many, 1, size, size, self.spec.channels), np.float32 if self.output == "float32" else np.uint8)
        scaled = scaling(self.spec.frame, self.output)
        engine.render(pixels, np.arange(many), where, self.crop.bicubic, color, *scaled, out)
        return out[:, 0]

    def stacked(self, drawn: NDArray[Any], out: NDArray[Any]) -> None:
        """Write the frames (stack, S, S, C) of an observation into its room (S, S, stack · C)."""
        out.reshape(*out.shape[:2], len(drawn), -1)[:] = drawn.transpose(1, 2, 0, 3)


def checked_crop(crop: Crop) -> Crop:
    """Return a crop that frames can have; raise `UserError` for another."""
    if crop.count > 1 or crop.warped or crop.turned or crop.noise:
        raise UserError("frames have one crop each, without warps, turns and noise")
    return crop


def normalized(x: Tensor, spec: TrajectorySpec) -> Tensor:
    """Return observations (..., stack · C, H, W) as float32, normalized by the spec; floats stay as they are."""
    if x.dtype != torch.uint8:
        return x
    mean, std = mean_std(spec.image, x)
    return (x.float() - 255 * mean).mul_(1 / (255 * std))
