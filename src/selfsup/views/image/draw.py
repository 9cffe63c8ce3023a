"""The parameters of a batch of views, drawn at once, as functions of (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import permutations
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from selfsup.views.image.crop import Crop
from selfsup.views.random import random_bits, uniform

ORDERS = np.array(
    list(permutations(range(4))), dtype=np.int64
)  # (24, 4) of 0 brightness, 1 contrast, 2 saturation, 3 hue
ORDER, BRIGHTNESS, CONTRAST, SATURATION, HUE, GRAY, SIGMA, SOLARIZE = range(8)
PLAIN = np.array([-1, 0, 0, 0, 0, 0, 0, 0], dtype=np.float32)  # parameters that change nothing

_COLUMNS = 17  # draws of a view
_TRIES = 10  # as torchvision: ten boxes, then the largest centre box
_RETRIES = 1 << 20  # first column of the second to tenth try
# first columns of what few views need, so that the draws of all others stay what they are
WARP, ELASTIC, _TURNS, _NOISE = (place << 24 for place in range(1, 5))
QUANTILES = 4096


class Places(NamedTuple):
    """The places of views in their images.

    `box` (B, V, 4) float64: top, left, height, width in pixels. `bounds` (B, V, 4) int64: top, bottom, left, right of
    the pixels that the resampling may read. `flip` (B, V) bool. `black`: whether pixels outside of the bounds count as
    black; the bounds are then those of the centre square.
    """

    box: NDArray[np.float64]
    bounds: NDArray[np.int64]
    flip: NDArray[np.bool_]
    black: bool


def draws(seed: int, epoch: int, indices: NDArray[np.int64], views: int) -> NDArray[np.float64]:
    """Return (B, V, 17) numbers in [0, 1)."""
    return uniform(seed, epoch, indices, views * _COLUMNS).reshape(len(indices), views, _COLUMNS)


def places(
    crop: Crop,
    shapes: NDArray[np.int64],
    u: NDArray[np.float64],
    seed: int,
    epoch: int,
    indices: NDArray[np.int64],
    first: int,
) -> Places:
    """Return the places of the views of a group. `shapes` (B, 2), `u` (B, V, 17); `first` is the group's first view."""
    high, wide = shapes[:, :1].astype(np.float64), shapes[:, 1:].astype(np.float64)
    views = 1 if crop.grid > 1 else crop.count
    if crop.scale is None:
        box = _centre_box(crop, high, wide, u[:, :views])
    else:
        inset = np.floor((1 - crop.centre) / 2 * shapes)[:, None]  # at whole pixels, as the boxes are
        inner = high - 2 * inset[..., 0], wide - 2 * inset[..., 1]
        box = _random_boxes(crop, *inner, u[:, :views], seed, epoch, indices, first)
        box[..., :2] += inset
    limits = np.zeros((len(u), crop.count, 4), dtype=np.int64)
    limits[..., 1], limits[..., 3] = shapes[:, :1], shapes[:, 1:]
    if crop.pad:  # of a landscape too, the shift shows black on all sides, or a rim would tell which side is longer
        corner = (shapes - shapes.min(1, keepdims=True)) // 2
        limits[..., ::2] = corner[:, None]
        limits[..., 1::2] = (corner + shapes.min(1, keepdims=True))[:, None]
    if crop.grid > 1:
        box = _grid_boxes(crop, box, u)
    elif crop.scale is not None:  # a crop is cut out first: its resampling reads nothing beyond its edge
        limits = np.stack([box[..., 0], box[..., 0] + box[..., 2], box[..., 1], box[..., 1] + box[..., 3]], -1).astype(
            np.int64
        )
    return Places(box, limits, u[..., 4] < crop.flip, crop.pad > 0)


def _centre_box(
    crop: Crop, high: NDArray[np.float64], wide: NDArray[np.float64], u: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Cut the centre as torchvision does: out of the image resized to whole pixels, at a whole pixel.

    With `pad`, the centre square is cut out first, at a whole pixel of the image, then resized and shifted.
    """
    side = np.minimum(high, wide) + 0 * u[..., 0]
    if crop.whole:
        return np.stack([0 * side, 0 * side, high + 0 * side, wide + 0 * side], -1)
    if crop.pad:
        shifts = np.floor(u[..., 2:4] * (2 * crop.pad + 1)) - crop.pad
        seen = side * crop.centre
        top = (high - side) // 2 + (side - seen) / 2 + shifts[..., 0] * seen / crop.size
        left = (wide - side) // 2 + (side - seen) / 2 + shifts[..., 1] * seen / crop.size
        return np.stack([top, left, seen, seen], -1)
    short = round(crop.size / crop.centre)
    rows, columns = np.floor(short * high / side), np.floor(short * wide / side)
    top = np.rint((rows - crop.size) / 2) * high / rows
    left = np.rint((columns - crop.size) / 2) * wide / columns
    return np.stack([top, left, crop.size * high / rows, crop.size * wide / columns], -1)


def _sides(
    crop: Crop, area: NDArray[np.float64], u: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return height and width of boxes from two draws each, `u` (..., 2)."""
    assert crop.scale is not None
    target = area * (crop.scale[0] + u[..., 0] * (crop.scale[1] - crop.scale[0]))
    low, up = np.log(crop.ratio)
    ratio = np.exp(low + u[..., 1] * (up - low))
    return np.rint(np.sqrt(target / ratio)), np.rint(np.sqrt(target * ratio))


def _random_boxes(
    crop: Crop,
    high: NDArray[np.float64],
    wide: NDArray[np.float64],
    u: NDArray[np.float64],
    seed: int,
    epoch: int,
    indices: NDArray[np.int64],
    first: int,
) -> NDArray[np.float64]:
    """Draw as torchvision's RandomResizedCrop.get_params does: up to ten boxes until one fits, then the centre."""
    h, w = _sides(crop, high * wide, u)
    fits = (h >= 1) & (w >= 1) & (h <= high) & (w <= wide)
    row, view = np.nonzero(~fits)
    if len(row):
        count = 2 * (_TRIES - 1)
        more = uniform(seed, epoch, indices[row], count, _RETRIES + (first + view) * count)
        tall, broad = _sides(crop, (high * wide)[row], more.reshape(len(row), _TRIES - 1, 2))
        good = (tall >= 1) & (broad >= 1) & (tall <= high[row]) & (broad <= wide[row])
        chosen = np.arange(len(row)), good.argmax(1)
        largest = _largest(crop, high[row, 0], wide[row, 0])
        found = good.any(1)
        h[row, view] = np.where(found, tall[chosen], largest[0])
        w[row, view] = np.where(found, broad[chosen], largest[1])
        fits[row, view] = found
    top = np.where(fits, np.floor(u[..., 2] * (high - h + 1)), (high - h) // 2)
    left = np.where(fits, np.floor(u[..., 3] * (wide - w + 1)), (wide - w) // 2)
    return np.stack([top, left, h, w], -1)


def _largest(
    crop: Crop, high: NDArray[np.float64], wide: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    ratio = np.clip(wide / high, *crop.ratio)
    h, w = np.minimum(high, np.rint(wide / ratio)), np.minimum(wide, np.rint(high * ratio))
    return np.maximum(h, 1), np.maximum(w, 1)


def _grid_boxes(crop: Crop, box: NDArray[np.float64], u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the boxes of the patches (B, grid², 4) in a square or rectangle (B, 1, 4)."""
    cells = np.arange(crop.grid)
    row, column = np.repeat(cells, crop.grid), np.tile(cells, crop.grid)
    cell_h, cell_w = box[..., 2] / crop.grid, box[..., 3] / crop.grid
    ratio = crop.size / (crop.size + crop.gap)
    h, w = np.broadcast_to(cell_h * ratio, u.shape[:2]), np.broadcast_to(cell_w * ratio, u.shape[:2])
    # whole view pixels of shift, so that all patches are resampled at the same phase
    shift = np.floor(u[..., 15:17] * (crop.gap + 1)) / (crop.size + crop.gap)
    top = box[..., 0] + (row + shift[..., 0]) * cell_h
    left = box[..., 1] + (column + shift[..., 1]) * cell_w
    return np.stack([top, left, h, w], -1)


class Rotations(NamedTuple):
    """What happens to finished views: upside down where `upside` (B, V), then `quarters` (B, V) as np.rot90."""

    upside: NDArray[np.bool_]
    quarters: NDArray[np.int64]


def rotations(crop: Crop, seed: int, epoch: int, indices: NDArray[np.int64], first: int) -> Rotations:
    """Return the rotations of the views of a group; `first` is the group's first view."""
    u = uniform(seed, epoch, indices, 2 * crop.count, _TURNS + 2 * first).reshape(len(indices), crop.count, 2)
    quarters = np.floor(4 * u[..., 1]).astype(np.int64) if crop.quarter_turns else np.zeros(u.shape[:2], np.int64)
    return Rotations(u[..., 0] < crop.vertical_flip, quarters)


class Noise(NamedTuple):
    """The noise of views: standard deviations `std` (B, V) float32 and the keys (B, V) int64 of their random bits."""

    std: NDArray[np.float32]
    key: NDArray[np.int64]


def noise(crop: Crop, seed: int, epoch: int, indices: NDArray[np.int64], first: int) -> Noise:
    """Return the noise of the views of a group; `first` is the group's first view."""
    bits = random_bits(seed, epoch, indices, 2 * crop.count, _NOISE + 2 * first).reshape(len(indices), crop.count, 2)
    std = (bits[..., 0] >> np.uint64(11)).astype(np.float64) * (crop.noise * 2.0**-53)
    return Noise(std.astype(np.float32), np.ascontiguousarray(bits[..., 1]).view(np.int64))


@cache
def quantiles() -> NDArray[np.float32]:
    """Return `QUANTILES` equally likely values of a normal distribution, from -3.7 to 3.7, of mean 0 and std 1.

    A table: 12 random bits are a normal number by one look-up, the same one on every device.
    """
    normal = NormalDist()
    values = np.array([normal.inv_cdf((place + 0.5) / QUANTILES) for place in range(QUANTILES)])
    return (values / values.std()).astype(np.float32)


def color_params(crop: Crop, u: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the parameters of the colour operations of views, (B, V, 8), from their draws (B, V, 17).

    Columns: ORDER (row of `ORDERS`, -1: no jitter), the factors BRIGHTNESS, CONTRAST and SATURATION, HUE in turns, GRAY
    (0 or 1), SIGMA in pixels (0: no blur), SOLARIZE (0 or 1).
    """
    found = np.tile(PLAIN, (*u.shape[:2], 1))
    if crop.jitter is not None:
        found[..., ORDER] = np.where(u[..., 5] < crop.jitter_p, np.floor(u[..., 6] * 24), -1)
        for place, strength in enumerate(crop.jitter[:3]):
            low = max(0.0, 1 - strength)
            found[..., BRIGHTNESS + place] = low + u[..., 7 + place] * (1 + strength - low)
        found[..., HUE] = (2 * u[..., 10] - 1) * crop.jitter[3]
    found[..., GRAY] = u[..., 11] < crop.gray
    sigma = crop.sigma[0] + u[..., 13] * (crop.sigma[1] - crop.sigma[0])
    found[..., SIGMA] = np.where(u[..., 12] < _row(crop.each("blur")), sigma, 0)
    found[..., SOLARIZE] = u[..., 14] < _row(crop.each("solarize"))
    return found


def _row(values: Sequence[float]) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64)[None]
