"""The cues of shortcut probes: numbers that tell where a patch was cut or how it was changed, not its content."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.nn.heads import mlp
from selfsup.spec import ImageSpec

BLIND = "nothing"
_BINS, _DEPTH, _REACH, _PERIOD, _MIN_SIZE = 4, 4, 2, 8, 8  # JPEG's blocks have 8 × 8 pixels


class Cue(NamedTuple):
    """A function (B, C, H, W) -> (B, K), the same K for every H and W; `about` in words."""

    see: Callable[[Tensor], Tensor]
    about: str
    channels: int = 1  # the minimum: images with fewer have no such cue


def sides(x: Tensor, depth: int = 0) -> Tensor:
    """(B, C, H, W) -> (B, 4, C, max(H, W)): the lines at `depth` from the top, bottom, left and right border."""
    lines = [x[:, :, depth], x[:, :, -1 - depth], x[..., depth], x[..., -1 - depth]]
    long = max(x.shape[2:])
    return torch.stack([F.interpolate(line, long) if line.shape[2] < long else line for line in lines], 1)


def rim(x: Tensor) -> Tensor:
    """Return the outermost line of each side, averaged over quarters, in all channels."""
    return F.adaptive_avg_pool1d(sides(x).flatten(1, 2), _BINS).flatten(1)


def colours(x: Tensor) -> Tensor:
    """Return the mean of each channel."""
    return x.mean((2, 3))


def aberration(x: Tensor) -> Tensor:
    """Return the correlation of the edges of red and of blue with those of green, shifted by up to 2 pixels."""
    edges = _laplacian(x[:, :3])
    high, wide = (side - 2 * _REACH for side in edges.shape[2:])
    green = _standard(edges[:, 1:2, _REACH : _REACH + high, _REACH : _REACH + wide])
    found = [
        (_standard(edges[:, ::2, down : down + high, right : right + wide]) * green).mean((2, 3))
        for down in range(2 * _REACH + 1)
        for right in range(2 * _REACH + 1)
    ]
    return torch.cat(found, 1)


def residual(x: Tensor) -> Tensor:
    """Return how the roughness of rows and columns repeats every 8 pixels, and how much finer than coarse it is."""
    folded = [_fold(x), _fold(x.transpose(2, 3))]
    fine, coarse = (_laplacian(y).abs().mean((1, 2, 3)) for y in (x, F.avg_pool2d(x, 2)))
    return torch.cat([*folded, ((fine + 1e-3) / (coarse + 1e-3)).log()[:, None]], 1)


def border(x: Tensor) -> Tensor:
    """Return how flat the four outermost lines of each side are: those of a frame vary less than the image does."""
    std = x.std((2, 3)).mean(1)[:, None] + 1e-3
    lines = [sides(x, depth).std(3).mean(2) for depth in range(_DEPTH)]
    return (torch.cat(lines, 1) / std + 0.02).log()


CUES = {
    "rim": Cue(rim, "the outermost pixels of each patch"),
    "colours": Cue(colours, "each patch's mean colour"),
    "aberration": Cue(aberration, "the offset between colour channels", channels=3),
    "residual": Cue(residual, "traces of resampling and of JPEG's grid"),
    "border": Cue(border, "flat lines along the border, as of frames"),
}


def nothing(x: Tensor) -> Tensor:
    """Return a constant."""
    return x.new_zeros(len(x), 1)


class ShortcutProbe(nn.Module):
    """An encoder (B, C, H, W) -> (B, 128) that sees one cue; `maps` repeats its output at each place."""

    def __init__(self, see: Callable[[Tensor], Tensor], spec: ImageSpec, dim: int = 128) -> None:
        super().__init__()
        self.see, self.spec, self.dim = see, spec, dim
        count = see(torch.zeros(1, spec.channels, 32, 32)).shape[1]
        self.layers = nn.Sequential(nn.BatchNorm1d(count, affine=False), mlp(count, 2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, dim)."""
        x = x.detach().float()
        if min(x.shape[2:]) < _MIN_SIZE:
            x = F.interpolate(x, tuple(max(side, _MIN_SIZE) for side in x.shape[2:]))
        return self.layers(self.see(x))

    def maps(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, dim, H // 4, W // 4)."""
        found: Tensor = self(x)
        return found[:, :, None, None].expand(-1, -1, max(1, x.shape[2] // 4), max(1, x.shape[3] // 4))


def _laplacian(x: Tensor) -> Tensor:
    inner = x[:, :, 1:-1, 1:-1]
    return 4 * inner - x[:, :, :-2, 1:-1] - x[:, :, 2:, 1:-1] - x[:, :, 1:-1, :-2] - x[:, :, 1:-1, 2:]


def _standard(x: Tensor) -> Tensor:
    centred = x - x.mean((-2, -1), keepdim=True)
    return centred / (centred.square().mean((-2, -1), keepdim=True).sqrt() + 1e-3)


def _fold(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, 8): for columns 0 to 7 modulo 8, the step to the next column relative to nearby steps."""
    steps = (x[..., 1:] - x[..., :-1]).abs()
    near = F.avg_pool2d(steps, (1, 3), 1, (0, 1), count_include_pad=False) + 1e-2
    ratio, rest = (steps / near).mean((1, 2)), (0, -steps.shape[3] % _PERIOD)
    count = F.pad(torch.ones_like(ratio), rest).view(len(x), -1, _PERIOD).sum(1)
    return F.pad(ratio, rest).view(len(x), -1, _PERIOD).sum(1) / count.clamp_min(1)
