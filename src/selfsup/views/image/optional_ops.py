"""The compiled steps that few views have: warp, rotation, noise.

Entry points of their own, so that other views neither compile nor run them. `reference.py` does the same with torch.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfsup.base import buffers
from selfsup.views.image.color_ops import compiled, copy_numbers
from selfsup.views.image.draw import Noise, Rotations, quantiles

f32, u64 = np.float32, np.uint64
entry = partial(compiled, inline=False)
_GOLDEN, _MIX1, _MIX2 = u64(0x9E3779B97F4A7C15), u64(0xBF58476D1CE4E5B9), u64(0x94D049BB133111EB)
_FAR = 1 << 20  # for rounding down by cutting: no place is this often beyond the edge
_SHIFTS = u64(4), u64(20), u64(36), u64(52)  # to the upper 12 of each 16 bits


@compiled
def _neighbours(places, extent, black, unit, first, second, near, far):
    """Find the two pixels of a line between which each place lies, and their weights times `unit`.

    Beyond the ends the line is reflected, or black. Without a branch or a call, so that it becomes vector instructions.
    """
    span, last = 2.0 * extent, extent - 1
    if black:
        for x in range(places.shape[0]):
            place = min(max(places[x], -2.0), extent + 1.0)
            i = np.int32(place + 2.0) - np.int32(2)  # rounds down, from -2
            w = f32(place - i)
            near[x] = (f32(1) - w) * unit if 0 <= i < extent else f32(0)
            far[x] = w * unit if -1 <= i < last else f32(0)
            first[x], second[x] = min(max(i, 0), last), min(max(i + 1, 0), last)
    else:
        for x in range(places.shape[0]):
            place = places[x] + 0.5
            place -= span * (np.int32(place / span + _FAR) - _FAR)  # a whole number of times there and back
            place = min(max(min(place, span - place) - 0.5, 0.0), float(last))
            i = np.int32(place)
            w = f32(place - i)
            near[x], far[x] = (f32(1) - w) * unit, w * unit
            first[x], second[x] = i, min(i + 1, last)


@entry
def _warp(canvas, matrix, field, black, unit, out):
    high, wide, channels = canvas.shape
    size, bent = out.shape[0], field.shape[1] > 0
    flat, into = canvas.reshape(-1), out.reshape(-1)
    down, across = np.empty(size), np.empty(size)
    top, bottom = np.empty(size, np.int32), np.empty(size, np.int32)
    left, right = np.empty(size, np.int32), np.empty(size, np.int32)
    above, below = np.empty(size, np.float32), np.empty(size, np.float32)
    before, behind = np.empty(size, np.float32), np.empty(size, np.float32)
    for y in range(size):
        for x in range(size):
            r, c = y + (field[0, y, x] if bent else 0.0), x + (field[1, y, x] if bent else 0.0)
            down[x] = matrix[0, 0] * r + matrix[0, 1] * c + matrix[0, 2]
            across[x] = matrix[1, 0] * r + matrix[1, 1] * c + matrix[1, 2]
        _neighbours(down, high, black, unit, top, bottom, above, below)
        _neighbours(across, wide, black, f32(1), left, right, before, behind)
        for x in range(size):
            w00, w01, w10, w11 = above[x] * before[x], above[x] * behind[x], below[x] * before[x], below[x] * behind[x]
            # unsigned: no check for negative positions
            a, b = top[x] * wide, bottom[x] * wide
            p00, p01 = u64((a + left[x]) * channels), u64((a + right[x]) * channels)
            p10, p11 = u64((b + left[x]) * channels), u64((b + right[x]) * channels)
            place = u64((y * size + x) * channels)
            if channels == 3:
                for k in (u64(0), u64(1), u64(2)):
                    upper = w00 * f32(flat[p00 + k]) + w01 * f32(flat[p01 + k])
                    into[place + k] = upper + w10 * f32(flat[p10 + k]) + w11 * f32(flat[p11 + k])
            else:
                for j in range(channels):
                    i = u64(j)
                    upper = w00 * f32(flat[p00 + i]) + w01 * f32(flat[p01 + i])
                    into[place + i] = upper + w10 * f32(flat[p10 + i]) + w11 * f32(flat[p11 + i])


@entry
def _rotate(views, upside, quarters, room):
    size, channels = views.shape[2], views.shape[4]
    last = size - 1
    for n, v in np.ndindex(views.shape[:2]):
        up, quarter = not upside[n, v], quarters[n, v]
        if up and quarter == 0:
            continue
        flat = views[n, v].reshape(-1)
        copy_numbers(flat, 0, flat.shape[0], room, 0)
        # the pixel at (y, x) comes from row a + ay * y + ax * x and column b + by * y + bx * x
        if quarter == 0:
            a, ay, ax, b, by, bx = 0, 1, 0, 0, 0, 1
        elif quarter == 1:
            a, ay, ax, b, by, bx = 0, 0, 1, last, -1, 0
        elif quarter == 2:
            a, ay, ax, b, by, bx = last, -1, 0, last, 0, -1
        else:
            a, ay, ax, b, by, bx = last, 0, -1, 0, 1, 0
        if not up:  # before the rotation
            a, ay, ax = last - a, -ay, -ax
        begin, down, across = a * size + b, ay * size + by, ax * size + bx
        for y in range(size):
            for x in range(size):
                # unsigned: no check for negative positions
                source, target = u64((begin + y * down + x * across) * channels), u64((y * size + x) * channels)
                if channels == 3:
                    for k in (u64(0), u64(1), u64(2)):
                        flat[target + k] = room[source + k]
                else:
                    for j in range(channels):
                        flat[target + u64(j)] = room[source + u64(j)]


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
            value = f32(flat[i]) + values[(bits >> _SHIFTS[lane]) & u64(values.shape[0] - 1)] * std * factor[c]
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


def rotate(views: NDArray[Any], rotations: Rotations) -> None:
    """Mirror and rotate views (B, V, S, S, C) in place."""
    room = buffers.scratch(f"rotate {views.dtype}", views[0, 0].size, views.dtype)
    _rotate(views, rotations.upside, rotations.quarters, room)


def add_noise(views: NDArray[Any], noise: Noise, factor: NDArray[np.float32], offset: NDArray[np.float32]) -> None:
    """Add noise to views (B, V, S, S, C) in place, clamped to 0..1 times factor (C,) plus offset (C,)."""
    _add_noise(views, noise.key, noise.std, factor, offset, views.dtype == np.uint8, quantiles())
