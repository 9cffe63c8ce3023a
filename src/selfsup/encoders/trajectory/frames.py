"""An image encoder that sees the frames of an observation one by one."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from selfsup.spec import TrajectorySpec


class FrameByFrame(nn.Module):
    """The representations of all frames of an observation side by side; `frame_maps` keeps them apart."""

    def __init__(self, image: Any, spec: TrajectorySpec) -> None:
        super().__init__()
        self.image, self.spec, self.dim = image, spec, spec.stack * image.dim
        self.has_maps = hasattr(image, "maps") and getattr(image, "has_maps", True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, stack · C, H, W) -> (B, dim)."""
        return self.image(self._frames(x)).unflatten(0, (-1, self.spec.stack)).flatten(1)

    def frame_maps(self, x: Tensor) -> Tensor:
        """(B, stack · C, H, W) -> (B, stack, D, H', W')."""
        return self.image.maps(self._frames(x)).unflatten(0, (-1, self.spec.stack))

    def maps(self, x: Tensor) -> Tensor:
        """(B, stack · C, H, W) -> (B, stack · D, H', W')."""
        return self.frame_maps(x).flatten(1, 2)

    def _frames(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (self.spec.stack, self.spec.channels)).flatten(0, 1)
