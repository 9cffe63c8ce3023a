"""The forms in which a sample is shown: an image, a text, a clip or a sound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MOVING = ("video", "trajectory")  # kinds of data whose samples are shown as clips


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames (T, H, W, 3) uint8, shown `rate` a second."""

    frames: NDArray[np.uint8]
    rate: float = 8.0

    def images(self) -> list[Image.Image]:
        """Return the frames one by one."""
        return [Image.fromarray(frame) for frame in self.frames]


@dataclass(frozen=True, eq=False)
class Waveform:
    """Samples (N,) float32 from -1 to 1, `rate` a second; one channel."""

    samples: NDArray[Any]
    rate: int


Media = Image.Image | str | Clip | Waveform
