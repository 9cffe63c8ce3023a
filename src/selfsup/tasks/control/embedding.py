"""The network of time-contrastive learning: feature maps, convolutions, where each feature is, a short embedding."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from selfsup.errors import UserError
from selfsup.nn.norm import BatchNormMaps

SHARP = 10.0  # by which maps are multiplied before the softmax at first; at 1 every mean place is the middle


class PoseEmbedding(nn.Module):
    """An encoder's maps through two convolutions with BatchNorm, a spatial softmax and an MLP (Sermanet et al., 2018).

    `dim` numbers represent an observation; `encoder` is the encoder inside. Raises `UserError` for an encoder without
    maps.
    """

    def __init__(self, encoder: Any, conv_dim: int, hidden_dim: int, out_dim: int) -> None:
        super().__init__()
        self.encoder, self.spec, self.dim = encoder, encoder.spec, out_dim
        widths = (map_channels(encoder), conv_dim, conv_dim)
        self.convolutions = nn.Sequential(*(block(*pair) for pair in pairwise(widths)))
        self.sharpness = nn.Parameter(torch.tensor(SHARP).log())
        self.head = nn.Sequential(nn.Linear(2 * conv_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, out_dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, dim)."""
        places = spatial_softmax(self.convolutions(self.encoder.maps(x)) * self.sharpness.exp())
        return self.head(places.flatten(1))


def block(before: int, after: int) -> nn.Sequential:
    """Return a 3 × 3 convolution with BatchNorm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1, bias=False), BatchNormMaps(after), nn.ReLU(inplace=True)
    )


def spatial_softmax(maps: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, 2): the mean place, from -1 to 1, of each map, weighted by its softmax over places."""
    weights = maps.float().flatten(2).softmax(2).view(maps.shape)
    rows, columns = (torch.linspace(-1, 1, side, device=maps.device) for side in maps.shape[2:])
    return torch.stack([(weights.sum(3) * rows).sum(2), (weights.sum(2) * columns).sum(2)], 2)


@torch.no_grad()
def map_channels(encoder: Any) -> int:
    """Return how many feature maps an encoder has. Raises `UserError` for one without."""
    if not (hasattr(encoder, "maps") and getattr(encoder, "has_maps", True)):
        raise UserError("this task asks where things are, which needs feature maps: use convnet or resnet18")
    training = encoder.training
    weight = next(encoder.parameters())
    channels: int = encoder.eval().maps(encoder.spec.example(1).to(weight.device)).shape[1]
    encoder.train(training)
    return channels
