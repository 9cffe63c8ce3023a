"""An image encoder that reads clips frame by frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from selfsup.spec import ClipSpec


class Framewise(nn.Module):
    """The mean of the representations of the frames, which knows nothing of their order; `frames` keeps them apart."""

    def __init__(self, image: Any, spec: ClipSpec) -> None:
        super().__init__()
        self.image, self.spec, self.dim = image, spec, image.dim

    def frames(self, x: Tensor) -> Tensor:
        """(B, T, C, H, W) -> (B, T, dim)."""
        return self.image(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    def frame_times(self) -> NDArray[np.float64]:
        """Return when each of `frames` is shown (T,), in seconds from the beginning of the clip."""
        return self.spec.times()

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C, H, W) -> (B, dim)."""
        return self.frames(x).mean(1)

    def frame_maps(self, x: Tensor) -> Tensor:
        """(B, T, C, H, W) -> (B, T, dim, H', W'), of convolutional encoders."""
        return self.image.maps(x.flatten(0, 1)).unflatten(0, x.shape[:2])
