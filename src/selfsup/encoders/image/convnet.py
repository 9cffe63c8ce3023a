"""The small reference encoder: trains in a minute on two CPU cores."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.spec import ImageSpec


class ConvNet(nn.Module):
    """Three 3×3 convolutions with BatchNorm and ReLU, max-pooling after the first two; at least 8 pixels a side.

    The representation is the last map averaged over its four quadrants (Dosovitskiy et al., 2014, section 3.1):
    (B, 4 * width), so that it keeps roughly where things are.
    """

    def __init__(self, spec: ImageSpec, width: int = 128) -> None:
        super().__init__()
        self.spec = spec
        widths = (spec.channels, width // 4, width // 2, width)
        self.blocks = nn.ModuleList(_block(before, after) for before, after in pairwise(widths))
        self.dim = 4 * width

    def maps(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, width, H // 4, W // 4)."""
        for depth, block in enumerate(self.blocks):
            x = block(x)
            x = F.relu(F.max_pool2d(x, 2) if depth < 2 else x, inplace=True)  # pooled first: the same, on fewer numbers
        return x

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 4 * width)."""
        return F.adaptive_avg_pool2d(self.maps(x), 2).flatten(1)


def _block(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after))
