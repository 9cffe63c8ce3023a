"""From the tokens of the visible patches to the masked ones, and what is said of such predictions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from selfsup.losses import full
from selfsup.nn.image.masks import take
from selfsup.nn.image.transformer import sines, start_linear


def spread(target: Tensor) -> Tensor:
    """Return how much features (B, M, dim) differ between samples: 0 where all are alike, a collapse, and at most 1."""
    return (target.var(0, correction=0).mean() / target.var(correction=0)).sqrt()


def similarity(predicted: Tensor, target: Tensor) -> list[float]:
    """Return the mean cosine of the features (B, M, dim) of each sample, from which the mean target is subtracted."""
    mean = target.mean((0, 1))
    return F.cosine_similarity(predicted - mean, target - mean, 2).mean(1).tolist()


class MaskDecoder(nn.Module):
    """A narrow transformer: from tokens (B, P + K, dim), the last K of patches, predict (B, M, out) for other patches.

    Each of these starts as the same learned mask token plus its position embedding: fixed sines and cosines.
    """

    places: Tensor

    def __init__(self, dim: int, grid: int | tuple[int, ...], out: int, *, width: int, depth: int) -> None:
        super().__init__()
        self.register_buffer("places", sines(grid, width), persistent=False)
        self.embed, self.mask_token = nn.Linear(dim, width), nn.Parameter(torch.zeros(width))
        heads = max(heads for heads in range(1, width // 16 + 1) if width % heads == 0) if width >= 16 else 1
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(depth)))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, out)
        start_linear(self)
        for parameter in (self.mask_token, self.out.weight):
            nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens: Tensor, visible: Tensor, masked: Tensor) -> Tensor:
        """`visible` (B, K), `masked` (B, M) int64: numbers of the patches that are seen and predicted. In float32."""
        places, known = self.places.expand(len(tokens), -1, -1), self.embed(tokens)
        prefix, seen = known.split([tokens.shape[1] - visible.shape[1], visible.shape[1]], 1)
        h = torch.cat([prefix, seen + take(places, visible), self.mask_token + take(places, masked)], 1)
        return full(self.out(self.norm(self.blocks(h))[:, -masked.shape[1] :]))
