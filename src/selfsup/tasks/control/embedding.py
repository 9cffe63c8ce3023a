"""The layers of time-contrastive networks: from an encoder's maps to where each feature is, and a short embedding."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from selfsup.errors import UserError
from selfsup.nn.image.places import spatial_softmax
from selfsup.nn.modes import tried_out
from selfsup.nn.norm import BatchNormClips, BatchNormMaps

SHARP = 10.0  # by which maps are multiplied before the softmax at first; at 1 every mean place is the middle


class PoseHead(nn.Module):
    """Two convolutions with BatchNorm, a spatial softmax and an MLP (Sermanet et al., 2018, section III-A)."""

    def __init__(self, channels: int, conv_dim: int, hidden_dim: int, out_dim: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential()
        for before, after in pairwise((channels, conv_dim, conv_dim)):
            convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
            self.convolutions.extend([convolution, BatchNormMaps(after), nn.ReLU()])
        self.sharpness = nn.Parameter(torch.tensor(SHARP).log())
        self.mlp = nn.Sequential(nn.Linear(2 * conv_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, out_dim))

    def forward(self, maps: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, out_dim)."""
        return self.mlp(spatial_softmax(self.convolutions(maps) * self.sharpness.exp()).flatten(1))


class MotionHead(nn.Module):
    """Two convolutions over time and place with BatchNorm, a spatial softmax of each time, and an MLP."""

    def __init__(self, channels: int, frames: int, conv_dim: int, hidden_dim: int, out_dim: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential()
        for before, after in pairwise((channels, conv_dim, conv_dim)):
            deep = min(3, frames)  # not padded in time, so that what comes out last knows all frames
            convolution = nn.Conv3d(before, after, (deep, 3, 3), padding=(0, 1, 1), bias=False)
            self.convolutions.extend([convolution, BatchNormClips(after), nn.ReLU()])
            frames -= deep - 1
        self.sharpness = nn.Parameter(torch.tensor(SHARP).log())
        places = 2 * conv_dim * frames
        self.mlp = nn.Sequential(nn.Linear(places, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, out_dim))

    def forward(self, maps: Tensor) -> Tensor:
        """(B, frames, channels, H, W) -> (B, out_dim)."""
        maps = self.convolutions(maps.transpose(1, 2)) * self.sharpness.exp()
        return self.mlp(spatial_softmax(maps.flatten(1, 2)).flatten(1))


class Embedding(nn.Module):
    """What such a network keeps: the embedding of the paper, `dim` numbers, with the encoder inside.

    `read` are the maps of the encoder that the head takes.
    """

    def __init__(self, encoder: Any, head: Any, out_dim: int, read: str = "maps") -> None:
        super().__init__()
        self.encoder, self.head, self.spec, self.dim, self.read = encoder, head, encoder.spec, out_dim, read

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, dim)."""
        maps: Callable[[Tensor], Tensor] = getattr(self.encoder, self.read)
        return self.head(maps(x))


def map_channels(encoder: Any) -> int:
    """Return how many feature maps an encoder has. Raises `UserError` for one without."""
    if not (hasattr(encoder, "maps") and getattr(encoder, "has_maps", True)):
        raise UserError("this task asks where things are, which needs feature maps: use convnet or resnet18")
    with tried_out(encoder):
        channels: int = encoder.maps(encoder.spec.example(1).to(next(encoder.parameters()))).shape[1]
    return channels
