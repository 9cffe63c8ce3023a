"""A convolutional decoder from a vector to an image."""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor, nn

from selfsup.nn.norm import BatchNormMaps
from selfsup.spec import ImageSpec


class Decoder(nn.Module):
    """(B, dim) -> (B, `channels`, size, size): a map of at most 8 × 8, upsampled and convolved to the spec's size.

    Unlike transposed convolutions, this leaves no checkerboard artefacts (Odena et al., 2016). The output is linear, in
    the units of normalized images. `width` is the number of channels at full resolution.
    """

    def __init__(self, dim: int, spec: ImageSpec, channels: int | None = None, width: int = 32) -> None:
        super().__init__()
        doublings = max(0, math.ceil(math.log2(spec.size / 8)))
        self.size, side = spec.size, math.ceil(spec.size / 2**doublings)
        widths = [width * 2 ** min(2, doublings - i) for i in range(doublings + 1)]
        layers: list[nn.Module] = [nn.Linear(dim, widths[0] * side**2, bias=False)]
        layers += [nn.Unflatten(1, (widths[0], side, side)), *_norm(widths[0])]
        for before, after in pairwise(widths):
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(before, after, 3, padding=1, bias=False), *_norm(after)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], channels or spec.channels, 3, padding=1))

    def forward(self, z: Tensor) -> Tensor:
        """(B, dim) -> (B, channels, size, size)."""
        return self.layers(z)[:, :, : self.size, : self.size]


def _norm(channels: int) -> list[nn.Module]:
    return [BatchNormMaps(channels), nn.ReLU(inplace=True)]
