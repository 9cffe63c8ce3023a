"""A network that says where things are, and little else."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.errors import UserError
from selfsup.nn.image.places import spatial_softmax
from selfsup.spec import ImageSpec

WIDTHS, SMALLEST = (16, 32, 32), 8
SHARP = 2.0  # by which maps of variance 1 are multiplied before the softmax at first


class PlaceCNN(nn.Module):
    """Three 3×3 convolutions, the first one of stride 2, and the mean place of each of the 32 maps (Finn et al., 2016).

    The representation (B, 64) are the mean rows and columns, from -1 to 1, of the softmax of each map over its places,
    whose variance is 1 before: of a thing that moves they change in proportion, so that distances between codes that
    are linear in them are distances between places, however far.
    """

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__()
        if spec.size < SMALLEST:
            raise UserError(f"place-cnn needs images of at least {SMALLEST} pixels: give another --size")
        self.spec, self.dim = spec, 2 * WIDTHS[-1]
        layers, before = list[nn.Module](), spec.channels
        for depth, width in enumerate(WIDTHS):
            layers += [nn.Conv2d(before, width, 3, 1 if depth else 2, 1), nn.ReLU(inplace=True)]
            before = width
        self.convolutions = nn.Sequential(*layers[:-1])
        self.sharpness = nn.Parameter(torch.full((before, 1, 1), SHARP).log())

    def maps(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 32, H // 2, W // 2)."""
        return self.convolutions(x)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 64)."""
        return self.with_maps(x)[0]

    def with_maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> the representation (B, 64), and the maps (B, 32, H // 2, W // 2)."""
        maps = self.maps(x)
        return spatial_softmax(F.instance_norm(maps) * self.sharpness.exp()).flatten(1), maps
