"""Modules that predict masked patches from visible ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from selfsup.nn.image.masks import take
from selfsup.nn.image.transformer import sines, start_linear


class MaskDecoder(nn.Module):
    """A narrow transformer: from tokens (B, P + K, dim), the last K of patches, predict (B, M, out) for other patches.

    Each of these starts as the same learned mask token plus its position embedding: fixed sines and cosines.
    """

    places: Tensor

    def __init__(self, dim: int, grid: int, out: int, *, width: int, depth: int) -> None:
        super().__init__()
        self.register_buffer("places", sines(grid, width), persistent=False)
        self.embed, self.mask_token = nn.Linear(dim, width), nn.Parameter(torch.zeros(width))
        heads = max(heads for heads in range(1, width // 16 + 1) if width % heads == 0) if width >= 16 else 1
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(depth)))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, out)
        start_linear(self)
        for parameter in (self.mask_token, self.out.weight):
            nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens: Tensor, keep: Tensor, asked: Tensor) -> Tensor:
        """`keep` (B, K) and `asked` (B, M) int64: the numbers of the visible and of the predicted patches."""
        places, known = self.places.expand(len(tokens), -1, -1), self.embed(tokens)
        prefix, seen = known.split([tokens.shape[1] - keep.shape[1], keep.shape[1]], 1)
        h = torch.cat([prefix, seen + take(places, keep), self.mask_token + take(places, asked)], 1)
        return self.out(self.norm(self.blocks(h))[:, -asked.shape[1] :])


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
