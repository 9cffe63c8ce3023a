"""Rotated, sheared, translated and elastically displaced views: where their pixels come from, and their canvas.

A view is made in two steps. The part of the image that it shows, and no more, is resized to the scale of the view as
crops are, antialiased: its canvas. There each pixel of the view is read bilinearly (`warp` of the engines).
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from selfsup.base import buffers
from selfsup.views.image.crop import Crop
from selfsup.views.image.draw import ELASTIC, WARP, Places
from selfsup.views.random import uniform

CELLS = 4  # of the elastic displacement a side: a cubic B-spline as wide as a Gaussian of a seventh of the side
_KNOTS = CELLS + 3


class Warps(NamedTuple):
    """Where the pixels of views come from.

    `matrix` (B, V, 2, 3) float64: from (row, column, 1) of a pixel of the view to its place in the image, in pixels
    from the upper left corner. `scale` (B, V, 2) float64: pixels of the image to one of the view. `knots` (B, V, 2, 7,
    7) float64: how far, in view pixels, the places near them move; None without elastic displacement. `region` (B, V,
    4) int64: top, left, height, width of what the views show.
    """

    matrix: NDArray[np.float64]
    scale: NDArray[np.float64]
    knots: NDArray[np.float64] | None
    region: NDArray[np.int64]


def warps(
    crop: Crop,
    where: Places,
    shapes: NDArray[np.int64],
    seed: int,
    epoch: int,
    indices: NDArray[np.int64],
    first: int,
) -> Warps:
    """Draw the warps of the views of a group at their places. `shapes` (B, 2); `first` is the group's first view."""
    size, count = crop.size, len(indices)
    drawn = 2 * uniform(seed, epoch, indices, 4 * crop.count, WARP + 4 * first).reshape(count, crop.count, 4) - 1
    angle, lean = np.radians(crop.degrees) * drawn[..., 0], np.tan(np.radians(crop.shear) * drawn[..., 1])
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.stack([np.stack([cos - sin * lean, -sin], -1), np.stack([sin + cos * lean, cos], -1)], -2)
    middle = turn @ np.full(2, 0.5 - size / 2) + size / 2 + size * crop.translate * drawn[..., 2:]
    scale = where.box[..., 2:] / size
    matrix = np.concatenate([turn, middle[..., None]], -1) * scale[..., None]
    matrix[..., 2] += where.box[..., :2]
    knots, reach = None, np.zeros((count, crop.count))
    if crop.elastic:
        each = 2 * _KNOTS**2
        u = uniform(seed, epoch, indices, each * crop.count, ELASTIC + each * first)
        knots = (2 * u - 1).reshape(count, crop.count, 2, _KNOTS, _KNOTS) * (crop.elastic * 3**0.5)  # std: elastic
        reach = np.abs(knots).max((2, 3, 4)) * _bend(size).sum(1).max() ** 2
    whole = np.insert(shapes, [0, 1], 0, axis=1)[:, None]  # (B, 1, 4): top, bottom, left, right
    bounds = where.bounds if where.black else np.broadcast_to(whole, where.bounds.shape)
    return Warps(matrix, scale, knots, _regions(matrix, scale, reach, size, bounds))


def _regions(
    matrix: NDArray[np.float64],
    scale: NDArray[np.float64],
    reach: NDArray[np.float64],
    size: int,
    bounds: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return the part of each image that its views read, with what reflection at an edge brings in (B, V, 4).

    `bounds` (B, V, 4): the top, bottom, left and right edge.
    """
    ends = np.stack([-0.5 - reach, size - 0.5 + reach], -1)
    rows, columns = ends[..., [0, 0, 1, 1]], ends[..., [0, 1, 0, 1]]
    corners = matrix[..., :1] * rows[..., None, :] + matrix[..., 1:2] * columns[..., None, :] + matrix[..., 2:]
    margin = 2 * np.maximum(1, scale)  # two pixels of the canvas
    low, high = corners.min(-1) - margin, corners.max(-1) + margin
    least, most = bounds[..., ::2].astype(np.float64), bounds[..., 1::2].astype(np.float64)
    begin = np.where(high > most, np.minimum(low, 2 * most - high), low)
    end = np.where(low < least, np.maximum(high, 2 * least - low), high)
    begin = np.clip(np.floor(begin), least, most - 1)
    end = np.clip(np.ceil(end), begin + 1, most)
    return np.concatenate([begin, end - begin], -1).astype(np.int64)


@cache
def _bend(size: int) -> NDArray[np.float64]:
    """Return how much each knot moves a pixel (size, 7), scaled so that knots of std 1 give displacements of std 1."""
    place = (np.arange(size) + 0.5) / size * CELLS
    distance = np.abs(place[:, None] + 1 - np.arange(_KNOTS))
    weights = np.where(distance < 1, 2 / 3 - distance**2 + distance**3 / 2, np.maximum(2 - distance, 0) ** 3 / 6)
    return weights / np.sqrt((weights**2).sum(1, keepdims=True))


def warp_views(engine: Any, image: NDArray[Any], warped: Warps, row: int, crop: Crop, black: bool) -> NDArray[Any]:
    """Return the views (V, S, S, C) float32 of an image (H, W, C), which is row `row` of the group; values in 0..1.

    They are scratch memory. `black`: whether what lies outside of the image is black; otherwise it is reflected.
    """
    size, channels = crop.size, image.shape[2]
    out = buffers.scratch("warped", crop.count * size * size * channels, np.float32)
    out = out.reshape(crop.count, size, size, channels)
    field = np.empty((2, 0, 0), np.float64)
    for view in range(crop.count):
        matrix, region = warped.matrix[row, view], warped.region[row, view]
        shape = np.maximum(np.rint(region[2:] / warped.scale[row, view]), 1).astype(np.int64)
        canvas = resized(image, region, shape, crop.bicubic)
        there = matrix * (shape / region[2:])[:, None]  # from the pixels of the image to those of the canvas
        there[:, 2] -= region[:2] * shape / region[2:] + 0.5
        if warped.knots is not None:
            field = _bend(size) @ warped.knots[row, view] @ _bend(size).T
        engine.warp(canvas, there, field, black, out[view])
    return out


def resized(image: NDArray[Any], region: NDArray[np.int64], shape: NDArray[np.int64], cubic: bool) -> NDArray[Any]:
    """Cut top, left, height, width out of (H, W, C) and resize it to `shape`: uint8 as it is, else float32 in 0..1.

    The result is scratch memory.
    """
    top, left, high, wide = region.tolist()
    dtype, channels = image.dtype if image.dtype == np.uint8 else np.dtype(np.float32), image.shape[2]
    cut = buffers.scratch(f"cut {dtype}", high * wide * channels, dtype).reshape(high, wide, channels)
    cut[:] = image[top : top + high, left : left + wide]
    if image.dtype == np.uint16:
        cut *= np.float32(1 / 65535)
    canvas = buffers.scratch(f"canvas {dtype}", int(shape.prod()) * channels, dtype).reshape(*shape.tolist(), channels)
    resize(cut, canvas, cubic)
    return canvas.clip(0, 1, out=canvas) if cubic and dtype == np.float32 else canvas


def resize(cut: NDArray[Any], out: NDArray[Any], cubic: bool) -> None:
    """Resize (H, W, C), antialiased, into out (h, w, C)."""
    ops = torch.ops.aten
    into = (ops._upsample_bicubic2d_aa if cubic else ops._upsample_bilinear2d_aa).out  # F.interpolate, in place
    # the batch dimension before the permutation: torch then sees channels-last memory and takes its fast path
    target, x = (torch.from_numpy(pixels)[None].permute(0, 3, 1, 2) for pixels in (out, cut))
    into(x, out.shape[:2], False, None, None, out=target)
