"""The convolutional decoder of data2vec 2.0 (Baevski et al., 2023)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Mix(nn.Module):
    """A residual block for (B, dim, H, W): grouped 3 × 3 convolution, LayerNorm over the channels, GELU."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        groups = next(groups for groups in (16, 8, 4, 2, 1) if dim % groups == 0)
        self.conv, self.norm = nn.Conv2d(dim, dim, 3, padding=1, groups=groups), nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return maps of the same shape."""
        mixed: Tensor = self.norm(self.conv(x).movedim(1, 3)).movedim(3, 1)
        return x + F.gelu(mixed)
