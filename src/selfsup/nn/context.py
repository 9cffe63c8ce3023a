"""The masked convolutional network of CPC: what lies above tells what comes below."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Context(nn.Module):
    """Residual blocks (B, dim, H, W) -> the same; a place sees its own row and those above (Hénaff et al., A.2)."""

    def __init__(self, dim: int, depth: int, norms: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(dim, norms) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        """Each block sees one row further up."""
        for block in self.blocks:
            x = x + block(x)
        return x


class _Block(nn.Module):
    def __init__(self, dim: int, norms: bool) -> None:
        super().__init__()
        self.across = nn.Conv2d(dim, dim, (1, 3), padding=(0, 1))
        self.down = nn.Conv2d(dim, dim, (2, 1))
        self.out = nn.Conv2d(dim, dim, 1)
        self.norm = nn.LayerNorm(dim) if norms else nn.Identity()  # of each place alone: it must not see others

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.across(self.norm(x.movedim(1, 3)).movedim(3, 1)))
        added: Tensor = self.out(F.relu(self.down(F.pad(x, (0, 0, 1, 0)))))
        return added
