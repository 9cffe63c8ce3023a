"""Colours of single observations, which know no place."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 4  # of each channel in a histogram


class ColourHistogram(nn.Module):
    """(B, stack · C, H, W) -> (B, 4^C): how much of the newest frame has which colour."""

    def __init__(self, spec: Any) -> None:
        super().__init__()
        self.channels = spec.channels
        self.mean, self.std = (torch.tensor(values).view(-1, 1, 1) for values in (spec.mean, spec.std))

    def forward(self, x: Tensor) -> Tensor:
        """Return features."""
        newest = x[:, -self.channels :] * self.std.to(x) + self.mean.to(x)
        level = (newest * LEVELS).long().clamp(0, LEVELS - 1)
        weights = LEVELS ** torch.arange(self.channels, device=x.device)
        number = (level * weights.view(-1, 1, 1)).sum(1).flatten(1)
        return F.one_hot(number, LEVELS**self.channels).float().mean(1)


class MeanColour(nn.Module):
    """(B, stack · C, H, W) -> (B, stack · C)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return features."""
        return x.mean((2, 3))
