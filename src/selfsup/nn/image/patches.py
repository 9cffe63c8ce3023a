"""Patches of images, cut out and transformed for a whole batch at once."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.utils import make_grid

from selfsup.errors import UserError
from selfsup.nn.modes import tried_out
from selfsup.spec import ImageSpec

LEAST = 8  # pixels: the smallest patch that the smallest encoders take


def pixels(fraction: float, side: int) -> int:
    """Return a fraction of a side in pixels, at least 1 unless it is 0."""
    return max(1, round(fraction * side)) if fraction else 0


def room(spec: ImageSpec, need: int, given: bool) -> int:
    """Return the side of the images that patches are cut from: `need` pixels if those of the spec are smaller.

    Raises `UserError` if the user has `given` a patch size that does not fit.
    """
    if given and need > spec.size:
        raise UserError(
            f"the patches and the gaps between them need {need} pixels, and the images have {spec.size}: "
            "give smaller ones (--patch-size, --tile-size) or a larger --size"
        )
    return max(need, spec.size)


def corners(cells: Tensor, columns: int, step: int, first: Tensor, moved: Tensor) -> tuple[Tensor, Tensor]:
    """Return the top and left (B, N) of patches in cells (B, N) or (N,) of a grid, numbered in reading order.

    Cells are `step` pixels apart and start at `first` (B, 2); each patch is shifted by `moved` (B, 2, N).
    """
    down, across = cells // columns * step, cells % columns * step
    return first[:, None, 0] + down + moved[:, 0], first[:, None, 1] + across + moved[:, 1]


def by_energy(x: Tensor, side: int, u: Tensor) -> Tensor:
    """Return the corner (B, 2), left and top, of a patch of square images, drawn in proportion to its gradient energy.

    `u` (B, 1): uniform draws in 0..1.
    """
    down, across, free = x.diff(dim=2)[..., :-1], x.diff(dim=3)[:, :, :-1], x.shape[3] - side + 1
    energy = (down.square() + across.square()).sum(1, keepdim=True)
    energy = F.avg_pool2d(energy, max(1, side - 1), stride=1)[:, 0, :free, :free]
    sums = (energy.flatten(1) + 1e-12).cumsum(1)
    at = torch.searchsorted(sums, u.to(sums.dtype) * sums[:, -1:]).clamp(max=sums.shape[1] - 1)
    return torch.cat([at % energy.shape[2], at // energy.shape[2]], 1)


def cut(x: Tensor, top: Tensor, left: Tensor, side: int, channel: Tensor | None = None) -> Tensor:
    """Cut patches out of (B, C, H, W) at corners (B, N), or (B, N, C) per channel -> (B, N, C, side, side).

    With `channel` (B, N) only one channel of each patch: (B, N, 1, side, side).
    """
    steps = torch.arange(side, device=x.device)
    top, left = (corner.view(*corner.shape[:2], -1, 1, 1) for corner in (top, left))
    sample = torch.arange(len(x), device=x.device).view(-1, 1, 1, 1, 1)
    taken = torch.arange(x.shape[1], device=x.device) if channel is None else channel[:, :, None]
    return x[sample, taken[..., None, None], top + steps[:, None], left + steps]


def standardised(patches: Tensor) -> Tensor:
    """Return patches (..., h, w) whose channels each have mean 0 and standard deviation 1; constant ones become 0."""
    var, mean = torch.var_mean(patches, (-2, -1), correction=0, keepdim=True)
    return (patches - mean) * (var + 1e-4).rsqrt()


def one_colour(patches: Tensor, kept: Tensor, noise: Tensor) -> Tensor:
    """Put the one channel of patches (B, N, 1, h, w) at `kept` (B, N), with `noise` (B, N, C - 1, h, w) as the others.

    The noise is scaled to 1/100 of the standard deviation of its patch. Returns (B, N, C, h, w).
    """
    parts = torch.cat([patches, noise * patches.std((3, 4), keepdim=True) / 100], 2)
    channel, kept = torch.arange(parts.shape[2], device=kept.device), kept[..., None]
    source = torch.where(channel == kept, 0, channel + (channel < kept).long())
    return parts.take_along_dim(source[..., None, None], 2)


def resizer(before: int, after: int, mode: str = "bilinear") -> Tensor:
    """Return the matrix A (after, before) that resizes a line of pixels; A @ x @ A.mT resizes an image.

    `mode`: bilinear, bicubic or lanczos (of three lobes), all antialiased; or area.
    """
    if mode == "lanczos":
        scale = max(1.0, before / after)
        centre = (torch.arange(after, dtype=torch.float32) + 0.5)[:, None] * (before / after)
        t = (torch.arange(before) + 0.5 - centre) / scale
        weights = torch.sinc(t) * torch.sinc(t / 3) * (t.abs() < 3)
        return weights / weights.sum(1, keepdim=True)
    smooth = mode in ("bilinear", "bicubic")
    options: dict[str, Any] = {"antialias": True, "align_corners": False} if smooth else {}
    return F.interpolate(torch.eye(before)[None, None], size=(after, before), mode=mode, **options)[0, 0]


def resamplers(side: int, least: int) -> Tensor:
    """Return matrices (K, side, side) that shrink a line to `least`, …, `side` - 1 pixels and enlarge it again.

    The last one changes nothing.
    """
    return torch.stack([resizer(k, side) @ resizer(side, k) for k in range(least, side)] + [torch.eye(side)])


def side_for(encoder: Any, side: int) -> int:
    """Return `side` if the encoder takes patches of this size, otherwise the side that it was built for."""
    spec: ImageSpec = encoder.spec
    device = next(iter(encoder.parameters()), torch.empty(0)).device
    try:
        with tried_out(encoder):
            encoder(torch.zeros(1, spec.channels, side, side, device=device))
        return side
    except (RuntimeError, ValueError, AssertionError, UserError):
        return spec.size


def encode(encoder: nn.Module, patches: Tensor, side: int) -> Tensor:
    """Encode each patch, resized to `side` if necessary: (B, N, C, h, w) -> (B, N, dim)."""
    x = patches.flatten(0, 1)
    if x.shape[-1] != side:
        x = F.interpolate(x, size=(side, side), mode="bilinear", antialias=True)
    return encoder(x.contiguous(memory_format=torch.channels_last)).view(*patches.shape[:2], -1)


def mosaic(patches: Tensor, columns: int) -> Tensor:
    """Arrange patches (N, C, h, w) in rows, one pixel apart -> one image (C, H, W)."""
    image = make_grid(patches, nrow=columns, padding=1, pad_value=-2.0)
    return image if patches.shape[1] > 1 else image[:1]


def put_together(pair: Tensor, label: int) -> Tensor:
    """Arrange the middle patch and its neighbour (2, C, h, w) on an empty grid of 3 × 3."""
    cells = torch.zeros_like(pair[:1]).repeat(9, 1, 1, 1)
    cells[4], cells[label + (label >= 4)] = pair
    return mosaic(cells, 3)
