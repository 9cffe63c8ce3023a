"""A small vision transformer over tubelets, the cubes of a clip."""

from __future__ import annotations

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from selfsup.errors import UserError
from selfsup.nn.image.masks import take
from selfsup.nn.image.transformer import sines, start_linear
from selfsup.spec import ClipSpec

WIDTH, DEPTH, HEADS, TUBELET = 128, 4, 4, 2


class ViTClip(nn.Module):
    """Blocks over cubes of 2 frames × `patch` × `patch` pixels; the representation is the mean of their tokens.

    `grid` (T', H', W'): cells along each axis, in whose order tokens are numbered. Positions are fixed sines and
    cosines, as in VideoMAE (Tong et al., 2022). Raises `UserError` for an odd number of frames, and for a size that no
    patch from 4 to 16 divides into 4 cells or more.
    """

    places: Tensor

    def __init__(self, spec: ClipSpec) -> None:
        super().__init__()
        sizes = [p for p in range(4, 17) if spec.size % p == 0 and spec.size // p >= 4]
        if spec.frames % TUBELET or not sizes:
            raise UserError(
                f"vit-clip needs an even number of frames and a size that a patch of 4 to 16 pixels divides, not "
                f"{spec.frames} frames of {spec.size} pixels: give another --frames or --size"
            )
        self.patch = min(sizes, key=lambda p: abs(spec.size / p - 8))
        self.spec, self.dim, self.tubelet, self.prefix, self.depth = spec, WIDTH, TUBELET, 0, DEPTH
        self.grid = (spec.frames // TUBELET, spec.size // self.patch, spec.size // self.patch)
        self.embed = nn.Linear(TUBELET * self.patch**2 * spec.channels, WIDTH)
        self.register_buffer("places", sines(self.grid, WIDTH), persistent=False)
        self.blocks = nn.Sequential(*(Block(WIDTH, HEADS, qkv_bias=True) for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(WIDTH)
        start_linear(self)

    def tokens(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """(B, T, C, H, W) -> (B, N, dim), after the last LayerNorm; `keep` (B, K) int64: only these cubes are seen."""
        h = self.embed(cubes(x, self.tubelet, self.patch).flatten(2)) + self.places
        if keep is not None:
            h = take(h, keep)
        return self.norm(self.blocks(h))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C, H, W) -> (B, dim)."""
        return self.tokens(x).mean(1)


def cubes(x: Tensor, tubelet: int, patch: int) -> Tensor:
    """(B, T, C, H, W) -> (B, N, tubelet · patch², C): the pixels of each cube, in the order of time, rows, columns."""
    x = x.unflatten(1, (-1, tubelet)).unflatten(4, (-1, patch)).unflatten(6, (-1, patch))
    return x.permute(0, 1, 4, 6, 2, 5, 7, 3).flatten(4, 6).flatten(1, 3)


def uncubes(cells: Tensor, grid: tuple[int, int, int], tubelet: int, patch: int) -> Tensor:
    """Return clips (B, T, C, H, W) from cubes (B, N, tubelet · patch², C)."""
    x = cells.unflatten(1, grid).unflatten(4, (tubelet, patch, patch))
    return torch.flatten(x.permute(0, 1, 4, 7, 2, 5, 3, 6), 1, 2).flatten(3, 4).flatten(4, 5)
