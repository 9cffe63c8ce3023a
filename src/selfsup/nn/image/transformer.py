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


def sines(grid: int, dim: int) -> Tensor:
    """Return (1, grid², dim): sines and cosines; half of the dimensions code the row, the other half the column.

    As in MAE (He et al., 2022), with wavelengths from 2π to 10,000 · 2π (Vaswani et al., 2017).
    """
    if dim % 4:
        raise UserError(f"the width of a transformer over patches must be a multiple of 4, not {dim}")
    angle = torch.arange(grid)[:, None] / 10_000 ** (torch.arange(dim // 4) / (dim // 4))
    one = torch.cat([angle.sin(), angle.cos()], 1)
    rows, columns = one[:, None].expand(-1, grid, -1), one[None].expand(grid, -1, -1)
    return torch.cat([rows, columns], 2).reshape(1, grid**2, dim)
