"""Initialization of transformers over patches: position embedding and linear layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from selfsup.errors import UserError


def start_linear(module: nn.Module) -> None:
    """Initialize linear layers with Xavier uniform weights and zero bias (He et al., 2022, appendix A.1)."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)


def sines(grid: int | tuple[int, ...], dim: int) -> Tensor:
    """Return (1, N, dim): sines and cosines, an equal part of the dimensions for each axis of the grid.

    `grid`: patches a side of a square, or cells along each axis, as those of clips (time, rows, columns); dimensions
    that cannot be divided among the axes are 0. As in MAE (He et al., 2022), with wavelengths from 2π to 10,000 · 2π
    (Vaswani et al., 2017).
    """
    if dim % 4:
        raise UserError(f"the width of a transformer over patches must be a multiple of 4, not {dim}")
    shape = (grid, grid) if isinstance(grid, int) else grid
    part = dim // (2 * len(shape))
    found = torch.zeros(*shape, dim)
    for axis, count in enumerate(shape):
        angle = torch.arange(count)[:, None] / 10_000 ** (torch.arange(part) / part)
        one = torch.cat([angle.sin(), angle.cos()], 1)
        around = [count if place == axis else 1 for place in range(len(shape))]
        found[..., 2 * part * axis : 2 * part * (axis + 1)] = one.view(*around, 2 * part)
    return found.view(1, -1, dim)
