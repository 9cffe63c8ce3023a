"""The compiled steps that few views have: warp, turn, noise.

Entry points of their own, so that other views neither compile nor run them. `reference.py` does the same with torch.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfsup.base import buffers
from selfsup.views.image.color_ops import compiled
from selfsup.views.image.draw import QUANTILES, Noise, Turns, quantiles

f32, u64 = np.float32, np.uint64
entry = partial(compiled, inline=False)
_GOLDEN, _MIX1, _MIX2 = u64(0x9E3779B97F4A7C15), u64(0xBF58476D1CE4E5B9), u64(0x94D049BB133111EB)
_SHIFTS = u64(4), u64(20), u64(36), u64(52)  # to the upper 12 of each 16 bits


@compiled
def _inside(place, extent):
    """Reflect a place at both ends of a line of pixels, and keep it between the middles of the first and the last."""
    if place < -0.5 or place > extent - 0.5:
        place = (place + 0.5) % (2 * extent)
        place = min(place, 2 * extent - place) - 0.5
    return min(max(place, 0.0), extent - 1.0)


@entry
def _warp(canvas, matrix, field, black, unit, out):
    high, wide, channels = canvas.shape
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            r, c = float(y), float(x)
            if field.shape[1] > 0:
                r += field[0, y, x]
                c += field[1, y, x]
            down = matrix[0, 0] * r + matrix[0, 1] * c + matrix[0, 2]
            across = matrix[1, 0] * r + matrix[1, 1] * c + matrix[1, 2]
            if not black:
                down, across = _inside(down, high), _inside(across, wide)
            top, left = math.floor(down), math.floor(across)
            wy, wx = f32(down - top), f32(across - left)
            w00, w01 = (f32(1) - wy) * (f32(1) - wx) * unit, (f32(1) - wy) * wx * unit
            w10, w11 = wy * (f32(1) - wx) * unit, wy * wx * unit
            if black:
                w00 = w00 if 0 <= top < high and 0 <= left < wide else f32(0)
                w01 = w01 if 0 <= top < high and -1 <= left < wide - 1 else f32(0)
                w10 = w10 if -1 <= top < high - 1 and 0 <= left < wide else f32(0)
                w11 = w11 if -1 <= top < high - 1 and -1 <= left < wide - 1 else f32(0)
            y0, y1 = min(max(top, 0), high - 1), min(max(top + 1, 0), high - 1)
            x0, x1 = min(max(left, 0), wide - 1), min(max(left + 1, 0), wide - 1)
            for k in range(channels):
                near = w00 * f32(canvas[y0, x0, k]) + w01 * f32(canvas[y0, x1, k])
                out[y, x, k] = near + w10 * f32(canvas[y1, x0, k]) + w11 * f32(canvas[y1, x1, k])


@entry
def _turn(views, upside, quarters, room):
    size, channels = views.shape[2], views.shape[4]
    last = size - 1
    for n, v in np.ndindex(views.shape[:2]):
        up, quarter = not upside[n, v], quarters[n, v]
        if up and quarter == 0:
            continue
        flat = views[n, v].reshape(-1)
        room[:] = flat
        # the pixel at (y, x) comes from row a + ay * y + ax * x and column b + by * y + bx * x
        if quarter == 0:
            a, ay, ax, b, by, bx = 0, 1, 0, 0, 0, 1
        elif quarter == 1:
            a, ay, ax, b, by, bx = 0, 0, 1, last, -1, 0
        elif quarter == 2:
            a, ay, ax, b, by, bx = last, -1, 0, last, 0, -1
        else:
            a, ay, ax, b, by, bx = last, 0, -1, 0, 1, 0
        if not up:  # before the turn
            a, ay, ax = last - a, -ay, -ax
        begin, down, across = a * size + b, ay * size + by, ax * size + bx
        for y in range(size):
            for x in range(size):
                source, target = (begin + y * down + x * across) * channels, (y * size + x) * channels
                for k in range(channels):
                    flat[target + k] = room[source + k]


@compiled
def _noisy(flat, key, std, factor, offset, whole, values):
    channels, count = factor.shape[0], flat.shape[0]
    c = 0
    for block in range((count + 3) // 4):
        bits = u64(key) + u64(block + 1) * _GOLDEN
        bits = (bits ^ (bits >> u64(30))) * _MIX1
        bits = (bits ^ (bits >> u64(27))) * _MIX2
        bits ^= bits >> u64(31)
        for lane in range(min(4, count - 4 * block)):
            i = 4 * block + lane
            value = f32(flat[i]) + values[(bits >> _SHIFTS[lane]) & u64(QUANTILES - 1)] * std * factor[c]
            if whole:
                flat[i] = np.int32(min(max(value + f32(0.5), f32(0)), f32(255)))
            else:
                flat[i] = min(max(value, offset[c]), offset[c] + factor[c])
            c = c + 1 if c + 1 < channels else 0


@entry
def _add_noise(views, key, std, factor, offset, whole, values):
    for n, v in np.ndindex(views.shape[:2]):
        if std[n, v] > 0:
            _noisy(views[n, v].reshape(-1), key[n, v], std[n, v], factor, offset, whole, values)


def warp(
    canvas: NDArray[Any], matrix: NDArray[np.float64], field: NDArray[np.float64], black: bool, out: NDArray[np.float32]
) -> None:
    """Sample a canvas (h, w, C), uint8 or float32 in 0..1, bilinearly into out (S, S, C) in 0..1.

    `matrix` (2, 3): from (row, column, 1) of a pixel of out to that of the canvas; before it `field` (2, S, S) is added
    to row and column, if it is not empty. Beyond the edge the canvas is reflected, or `black`.
    """
    _warp(canvas, matrix, field, black, f32(1 if canvas.dtype == np.float32 else 1 / 255), out)


def turn(views: NDArray[Any], turns: Turns) -> None:
    """Turn views (B, V, S, S, C) in place."""
    _turn(views, turns.upside, turns.quarters, buffers.scratch(f"turn {views.dtype}", views[0, 0].size, views.dtype))


def add_noise(views: NDArray[Any], noise: Noise, factor: NDArray[np.float32], offset: NDArray[np.float32]) -> None:
    """Add noise to views (B, V, S, S, C) in place, clamped to 0..1 times factor (C,) plus offset (C,)."""
    _add_noise(views, noise.key, noise.std, factor, offset, views.dtype == np.uint8, quantiles())
