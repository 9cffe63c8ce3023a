"""Observations of episodes as an encoder takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from selfsup.spec.image import IMAGENET, MAX_CHANNELS, MAX_SIZE, ImageSpec, is_scale
from selfsup.spec.media import Clip, Media

MAX_RATE = 1e6
ACTIONS = ("discrete", "box", "none")


@dataclass(frozen=True)
class TrajectorySpec:
    """Observations (B, stack · C, H, W) float32: (x - mean) / std of pixels from 0 to 1, channels C 1 or 3.

    An observation is `stack` frames of one camera that follow one another, in channels, the oldest first; before the
    first frame of an episode that frame is repeated. `cameras`: their names, the first one is the camera that an
    encoder sees where a task does not compare several. `action`: ("discrete", n) for numbers from 0 to n - 1,
    ("box", d) for d real numbers, ("none", 0) where nothing acts. `states`: names of what is known of each moment and
    not shown. `fps`: observations a second. `mean` and `std` of one frame, a channel.
    """

    kind: ClassVar[str] = "trajectory"
    samples: ClassVar[str] = "episodes"
    axes: ClassVar[str] = "BCHW"
    of_training: ClassVar[tuple[str, ...]] = ()
    length: ClassVar[int] = 1  # observations between two windows that follow one another

    size: int
    channels: int
    stack: int
    cameras: tuple[str, ...]
    action: tuple[str, int]
    states: tuple[str, ...]
    fps: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(
        cls,
        size: int,
        channels: int = 3,
        stack: int = 1,
        cameras: tuple[str, ...] = ("camera",),
        action: tuple[str, int] = ("none", 0),
        states: tuple[str, ...] = (),
        fps: float = 1.0,
    ) -> TrajectorySpec:
        """Return a spec with the usual normalization of images."""
        mean, std = IMAGENET if channels == 3 else ((0.5,), (0.5,))
        return cls(size, channels, stack, cameras, action, states, fps, mean, std)

    @property
    def frame(self) -> ImageSpec:
        """The spec of one frame."""
        return ImageSpec(self.size, self.channels, self.mean, self.std)

    @property
    def image(self) -> ImageSpec:
        """The spec of the image that an encoder takes: all frames of an observation, in channels."""
        return ImageSpec(self.size, self.stack * self.channels, self.mean * self.stack, self.std * self.stack)

    @property
    def rate(self) -> float:
        """Observations a second: the units of a source's `extent`."""
        return self.fps

    def example(self, n: int) -> Tensor:
        """Return zeros (n, stack · C, H, W)."""
        return torch.zeros(n, self.stack * self.channels, self.size, self.size)

    def describe(self) -> str:
        """Return the frames of an observation, their size, and the camera where there are several."""
        frames = f"{self.stack} frames, " if self.stack > 1 else ""
        camera = f" of {self.cameras[0]}" if len(self.cameras) > 1 else ""
        return f"observations{camera}, {frames}{self.frame.describe()}"

    def draw(self, x: Tensor) -> Media:
        """Undo the normalization of (stack · C, H, W): an image, or a clip of several frames."""
        frames = [self.frame.draw(frame) for frame in x.unflatten(0, (self.stack, self.channels))]
        return frames[0] if self.stack == 1 else Clip(np.stack([np.asarray(frame) for frame in frames]), self.fps)

    def to_json(self) -> dict[str, Any]:
        """Return all fields."""
        return {"kind": self.kind, **asdict(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], folder: Path) -> TrajectorySpec:
        """Return the spec; ValueError for impossible sizes, cameras, actions, means or standard deviations."""
        size, channels, stack = (values[key] for key in ("size", "channels", "stack"))
        if not all(type(value) is int for value in (size, channels, stack)):
            raise ValueError("the size, channels or stack are not whole numbers")
        cameras, states = tuple(values["cameras"]), tuple(values["states"])
        (action, count), fps = values["action"], values["fps"]
        mean, std = tuple(values["mean"]), tuple(values["std"])
        sound = (
            0 < size <= MAX_SIZE
            and channels in (1, 3)
            and 0 < stack * channels <= MAX_CHANNELS
            and len(cameras) > 0
            and all(isinstance(name, str) for name in (*cameras, *states))
            and action in ACTIONS
            and type(count) is int
            and 0 < fps <= MAX_RATE
            and is_scale(mean, std, channels)
        )
        if not sound:
            raise ValueError("it has an impossible spec")
        return cls(size, channels, stack, cameras, (action, count), states, float(fps), mean, std)

    def save(self, folder: Path) -> None:
        """Write nothing: the recipe contains everything."""
