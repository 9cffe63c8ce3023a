"""The small reference encoder, which trains in a minute on two CPU cores."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.spec import ImageSpec


class ConvNet(nn.Module):
    """Three 3×3 convolutions with BatchNorm and ReLU, max-pooling after the first two; images of at least 8 × 8 pixels.

    The representation (B, 4 * width) averages the last feature map over each of its four quadrants (Dosovitskiy et al.,
    2014, section 3.1), which keeps roughly where things are.
    """

    def __init__(self, spec: ImageSpec, width: int = 128) -> None:
        super().__init__()
        self.spec = spec
        widths = (spec.channels, width // 4, width // 2, width)
        self.blocks = nn.ModuleList(_block(before, after) for before, after in pairwise(widths))
        self.dim = 4 * width

    def stages(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) -> the maps of the three blocks, of which the first is (B, width // 4, H // 2, W // 2)."""
        maps = []
        for depth, block in enumerate(self.blocks):
            x = block(x)
            x = F.relu(
                F.max_pool2d(x, 2) if depth < 2 else x, inplace=True
            )  # pooling first gives the same for less work
            maps.append(x)
        return maps

    def maps(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, width, H // 4, W // 4)."""
        return self.stages(x)[-1]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 4 * width)."""
        return self.with_maps(x)[0]

    def with_maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> the representation (B, 4 * width), and its map (B, width, H // 4, W // 4)."""
        maps = self.maps(x)
        return F.adaptive_avg_pool2d(maps, 2).flatten(1), maps


def _block(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after))
