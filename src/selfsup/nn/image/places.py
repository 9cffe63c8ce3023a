"""Where in an image something is."""

from __future__ import annotations

import torch
from torch import Tensor

from selfsup.losses import full


def spatial_softmax(maps: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, 2): the mean place, from -1 to 1, of each map, weighted by its softmax over places."""
    weights = full(maps).flatten(2).softmax(2).view(maps.shape)
    rows, columns = (torch.linspace(-1, 1, side).to(weights) for side in maps.shape[2:])
    return torch.stack([(weights.sum(3) * rows).sum(2), (weights.sum(2) * columns).sum(2)], 2)
