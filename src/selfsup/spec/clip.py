"""Clips of videos as an encoder takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfsup.spec.image import IMAGENET, MAX_SIZE, ImageSpec, is_scale
from selfsup.spec.media import Clip

MAX_FRAMES, MAX_FPS = 1024, 1000.0


@dataclass(frozen=True)
class ClipSpec:
    """Clips of square frames, (B, T, C, H, W) float32: (x - mean) / std of pixels from 0 to 1, channels 1 or 3.

    A clip is `frames` frames, `step` frames apart, of a video with `fps` frames a second, whatever its file has.
    """

    kind: ClassVar[str] = "video"
    samples: ClassVar[str] = "videos"
    axes: ClassVar[str] = "BTCHW"
    of_training: ClassVar[tuple[str, ...]] = ()

    size: int
    channels: int
    frames: int
    step: int
    fps: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, size: int, channels: int = 3, frames: int = 8, step: int = 2, fps: float = 10.0) -> ClipSpec:
        """Return a spec with the usual normalization of images."""
        mean, std = IMAGENET if channels == 3 else ((0.5,), (0.5,))
        return cls(size, channels, frames, step, fps, mean, std)

    @property
    def image(self) -> ImageSpec:
        """The spec of one frame."""
        return ImageSpec(self.size, self.channels, self.mean, self.std)

    @property
    def rate(self) -> float:
        """Frames of the video in a second: the units of a source's `extent`."""
        return self.fps

    @property
    def length(self) -> int:
        """How many frames of the video lie between the beginnings of two clips that follow one another."""
        return self.frames * self.step

    def times(self) -> NDArray[np.float64]:
        """Return when each frame of a clip is shown (T,), in seconds from its beginning."""
        return np.arange(self.frames) * self.step / self.fps

    def example(self, n: int) -> Tensor:
        """Return zeros (n, T, C, H, W)."""
        return torch.zeros(n, self.frames, self.channels, self.size, self.size)

    def describe(self) -> str:
        """Return the frames, their distance and their size."""
        seconds = self.frames * self.step / self.fps
        return f"clips of {self.frames} frames in {seconds:.3g} s, {self.image.describe()}"

    def draw(self, x: Tensor) -> Clip:
        """Undo the normalization of (T, C, H, W); shown at the speed of the video."""
        frames = np.stack([np.asarray(self.image.draw(frame)) for frame in x])
        return Clip(frames, self.fps / self.step)

    def to_json(self) -> dict[str, Any]:
        """Return all fields."""
        return {"kind": self.kind, **asdict(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], folder: Path) -> ClipSpec:
        """Return the spec; ValueError for impossible sizes, numbers of frames, means or standard deviations."""
        whole = size, channels, frames, step = [values[key] for key in ("size", "channels", "frames", "step")]
        fps, mean, std = values["fps"], tuple(values["mean"]), tuple(values["std"])
        if not all(type(value) is int for value in whole):
            raise ValueError("the size, channels, frames or step are not whole numbers")
        sound = (
            0 < size <= MAX_SIZE
            and channels in (1, 3)
            and 0 < frames <= MAX_FRAMES
            and 0 < step <= MAX_FRAMES
            and 0 < fps <= MAX_FPS
            and is_scale(mean, std, channels)
        )
        if not sound:
            raise ValueError("it has an impossible spec")
        return cls(size, channels, frames, step, float(fps), mean, std)

    def save(self, folder: Path) -> None:
        """Write nothing: the recipe contains everything."""
