"""The same as `kernel.py` in batched torch: for machines without numba, and for colour operations on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from selfsup.views.image.draw import BRIGHTNESS, GRAY, ORDER, ORDERS, SIGMA, SOLARIZE, Places

_WEIGHTS = (0.299, 0.587, 0.114)


def change_colors(x: Tensor, colors: Tensor) -> Tensor:
    """Return images (N, C, H, W), float in 0..1, after colour operations by `draw.color_params` (N, 8)."""
    x = x.clone()
    orders = torch.as_tensor(ORDERS, device=x.device)[colors[:, ORDER].long().clamp(min=0)]
    orders[colors[:, ORDER] < 0] = -1
    for step in range(4):
        for op, change in enumerate((_brighten, _contrast, _saturate, _turn_hue)):
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


def _turn_hue(x: Tensor, turns: Tensor) -> Tensor:
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
