"""The same as `kernel.py` in batched torch: for machines without numba, and for colour operations on a GPU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from selfsup.nn.noise import random_bits
from selfsup.views.image.draw import (
    BRIGHTNESS,
    GRAY,
    ORDER,
    ORDERS,
    QUANTILES,
    SIGMA,
    SOLARIZE,
    Noise,
    Places,
    Rotations,
    quantiles,
)

_WEIGHTS = (0.299, 0.587, 0.114)


def change_colors(x: Tensor, colors: Tensor) -> Tensor:
    """Return images (N, C, H, W), float in 0..1, after colour operations by `draw.color_params` (N, 8)."""
    x = x.clone()
    orders = torch.as_tensor(ORDERS, device=x.device)[colors[:, ORDER].long().clamp(min=0)]
    orders[colors[:, ORDER] < 0] = -1
    for step in range(4):
        for op, change in enumerate((_brighten, _contrast, _saturate, _shift_hue)):
            rows = (orders[:, step] == op).nonzero()[:, 0]
            if len(rows) and (op < 2 or x.shape[1] == 3):
                x[rows] = change(x[rows], colors[rows, BRIGHTNESS + op].view(-1, 1, 1, 1))
    if x.shape[1] == 3:
        rows = colors[:, GRAY].nonzero()[:, 0]
        x[rows] = _luma(x[rows]).expand(-1, 3, -1, -1)
    rows = colors[:, SIGMA].nonzero()[:, 0]
    if len(rows):
        x[rows] = blur(x[rows], colors[rows, SIGMA])
    return torch.where((x >= 0.5) & (colors[:, SOLARIZE] > 0).view(-1, 1, 1, 1), 1 - x, x)


def _luma(x: Tensor) -> Tensor:
    r, g, b = x.unbind(1)
    return (_WEIGHTS[0] * r + _WEIGHTS[1] * g + _WEIGHTS[2] * b)[:, None]


def _brighten(x: Tensor, factor: Tensor) -> Tensor:
    return (x * factor).clamp_(0, 1)


def _contrast(x: Tensor, factor: Tensor) -> Tensor:
    mean = (_luma(x) if x.shape[1] == 3 else x).mean((1, 2, 3), keepdim=True)
    return (x * factor + (1 - factor) * mean).clamp_(0, 1)


def _saturate(x: Tensor, factor: Tensor) -> Tensor:
    return (x * factor + (1 - factor) * _luma(x)).clamp_(0, 1)


def _shift_hue(x: Tensor, turns: Tensor) -> Tensor:
    """To HSV and back; with hue k in sixths a channel is value - chroma * clamp(min(k, 4 - k), 0, 1)."""
    r, g, b = x.unbind(1)
    value = x.amax(1)
    chroma = value - x.amin(1)
    per = 1 / chroma.clamp(min=1e-9)
    hue = torch.where(value == g, (b - r) * per + 2, (r - g) * per + 4)
    hue = torch.where(value == r, (g - b) * per, hue) + 6 * turns[:, 0]
    k = (hue[:, None] + torch.arange(5.0, 0.0, -2.0, device=x.device).view(1, 3, 1, 1)).remainder_(6)
    return value[:, None] - chroma[:, None] * torch.minimum(k, 4 - k).clamp_(0, 1)


def blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Blur (N, C, H, W) by Gaussians of sigma (N,) pixels, cut at 3 sigma; borders reflect without the edge."""
    size = x.shape[-1]
    radii = (3 * sigma).ceil().clamp(max=size - 1)
    reach = int(radii.max())
    if reach < 1:
        return x
    steps = torch.arange(reach + 1, device=x.device, dtype=x.dtype)
    weights = torch.exp(-0.5 * (steps / sigma[:, None]) ** 2) * (steps <= radii[:, None])
    weights = (weights / (2 * weights.sum(1, keepdim=True) - 1)).view(len(x), 1, 1, 1, -1)
    for dim in (2, 3):
        padded = F.pad(x, (0, 0, reach, reach) if dim == 2 else (reach, reach, 0, 0), mode="reflect")
        x = padded.narrow(dim, reach, size) * weights[..., 0]
        for k in range(1, reach + 1):
            x += weights[..., k] * (padded.narrow(dim, reach - k, size) + padded.narrow(dim, reach + k, size))
    return x


def noisy(x: Tensor, key: Tensor, std: Tensor) -> Tensor:
    """Return images (N, C, H, W) in 0..1 with noise of `std` (N,), drawn from keys (N,) int64, clamped."""
    return (x + gaussian(key, x.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2) * std.view(-1, 1, 1, 1)).clamp_(0, 1)


def gaussian(key: Tensor, shape: Sequence[int]) -> Tensor:
    """Return normal numbers of this shape (N, ...): four of the 64 random bits each, by the table of quantiles."""
    count = math.prod(shape[1:])
    bits = random_bits(key, -(-count // 4))[..., None] >> torch.tensor([4, 20, 36, 52], device=key.device)
    table = torch.from_numpy(quantiles()).to(key.device)
    return table[(bits & (QUANTILES - 1)).flatten(1)[:, :count]].view(tuple(shape))


def paint(
    crops: NDArray[np.uint8],
    flips: NDArray[np.bool_],
    colors: NDArray[np.float32],
    factor: NDArray[np.float32],
    offset: NDArray[np.float32],
    out: NDArray[Any],
) -> None:
    """As `kernel.paint`."""
    x = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255
    x[flips] = x[flips].flip(3)
    _store(change_colors(x, torch.from_numpy(colors)), factor, offset, out)


def render(
    x: NDArray[Any],
    picked: NDArray[np.int64],
    places: Places,
    cubic: bool,
    colors: NDArray[np.float32],
    factor: NDArray[np.float32],
    offset: NDArray[np.float32],
    out: NDArray[Any],
) -> None:
    """As `kernel.render`."""
    images = torch.from_numpy(x[picked].astype(np.float32) / (1 if x.dtype == np.float32 else np.iinfo(x.dtype).max))
    size = out.shape[2]
    for view in range(out.shape[1]):
        box, bounds = places.box[:, view], places.bounds[:, view]
        rows = _weights(box[:, 0], box[:, 2], bounds[:, :2], x.shape[1], size, cubic, places.black)
        columns = _weights(box[:, 1], box[:, 3], bounds[:, 2:], x.shape[2], size, cubic, places.black)
        columns[places.flip[:, view]] = columns[places.flip[:, view], ::-1]
        done = torch.einsum("nsh,nhwc->nscw", torch.from_numpy(rows), images)
        done = torch.einsum("ntw,nscw->ncst", torch.from_numpy(columns), done).clamp_(0, 1)
        _store(change_colors(done, torch.from_numpy(colors[:, view])), factor, offset, out[:, view])


def warp(
    canvas: NDArray[Any], matrix: NDArray[np.float64], field: NDArray[np.float64], black: bool, out: NDArray[np.float32]
) -> None:
    """As `optional_ops.warp`."""
    high, wide = canvas.shape[:2]
    places = np.stack([*np.mgrid[: len(out), : len(out)].astype(np.float64), np.ones(out.shape[:2])])
    if field.size:
        places[:2] += field
    down, across = torch.from_numpy(np.tensordot(matrix, places, 1))
    grid = torch.stack([(2 * across + 1) / wide - 1, (2 * down + 1) / high - 1], -1)
    x = torch.from_numpy(canvas / (1 if canvas.dtype == np.float32 else 255)).double().permute(2, 0, 1)
    mode = "zeros" if black else "reflection"
    found = F.grid_sample(x[None], grid[None], padding_mode=mode, align_corners=False)
    out[...] = found[0].permute(1, 2, 0).numpy()


def rotate(views: NDArray[Any], rotations: Rotations) -> None:
    """As `optional_ops.rotate`."""
    views[rotations.upside] = views[rotations.upside, ::-1]
    for k in (1, 2, 3):
        views[rotations.quarters == k] = np.rot90(views[rotations.quarters == k], k, (1, 2))


def add_noise(views: NDArray[Any], noise: Noise, factor: NDArray[np.float32], offset: NDArray[np.float32]) -> None:
    """As `optional_ops.add_noise`."""
    drawn = gaussian(torch.from_numpy(noise.key.reshape(-1)), (noise.key.size, *views.shape[2:])).numpy()
    values = drawn.reshape(views.shape) * noise.std[..., None, None, None] * factor + views
    if views.dtype == np.uint8:
        values, offset = values + np.float32(0.5), np.zeros_like(factor)
    views[...] = values.clip(offset, offset + factor)


def _weights(
    start: NDArray[np.float64],
    length: NDArray[np.float64],
    bounds: NDArray[np.int64],
    extent: int,
    size: int,
    cubic: bool,
    black: bool,
) -> NDArray[np.float32]:
    """Return (B, size, extent): how much of each input pixel an output pixel sees, antialiased."""
    scale = (length / size)[:, None, None]
    middle = start[:, None, None] + scale * (np.arange(size)[:, None] + 0.5)
    stretch = np.maximum(scale, 1)
    # black: what falls outside counts in the sum, so the weights are taken over a wider range first
    margin = int(np.ceil(max(-start.min(), (start + length).max() - extent, 0) + 2 * stretch.max())) + 1 if black else 0
    pixels = np.arange(-margin, extent + margin)
    t = np.abs(pixels + 0.5 - middle) / stretch
    if cubic:
        weights = np.where(t < 1, (1.5 * t - 2.5) * t * t + 1, ((-0.5 * t + 2.5) * t - 4) * t + 2) * (t < 2)
    else:
        weights = np.maximum(0, 1 - t)
    inside = (pixels >= bounds[:, :1]) & (pixels < bounds[:, 1:])
    if not black:
        weights = weights * inside[:, None]
    weights = weights / weights.sum(-1, keepdims=True) * inside[:, None]
    return np.ascontiguousarray(weights[..., margin : margin + extent], dtype=np.float32)


def _store(x: Tensor, factor: NDArray[np.float32], offset: NDArray[np.float32], out: NDArray[Any]) -> None:
    out[...] = (x.permute(0, 2, 3, 1) * torch.from_numpy(factor) + torch.from_numpy(offset)).numpy()
