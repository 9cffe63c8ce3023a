"""The compiled engine: resampling and colour operations of images, one pass a view, without the interpreter's lock.

Planes are float32 in 0..1. The first use compiles, which takes some seconds; numba's cache keeps the result on disk. It
notices a change of this file, but not of what is inlined into its functions from `color_ops.py`. `reference.py`
does the same with torch alone.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfsup.base import buffers
from selfsup.views.image.color_ops import LANES, color_changer, compiled, scale_clamped
from selfsup.views.image.draw import Places
from selfsup.views.image.optional_ops import add_noise, rotate, warp

__all__ = ["add_noise", "paint", "render", "rotate", "warp"]

f32 = np.float32
entry = partial(compiled, inline=False)  # called from Python


@compiled
def _taps(start, length, size, low, high, black, mirror, cubic, first, weights):
    """Fill in the weights with which output pixels see the input, antialiased; return the most taps of a pixel."""
    scale = length / size
    stretch = max(scale, 1.0)
    support = 2 * stretch if cubic else stretch
    most = 1
    for i in range(size):
        middle = start + scale * (i + 0.5)
        begin, end = math.floor(middle - support + 0.5), math.floor(middle + support + 0.5)
        inner, outer = max(begin, low), min(end, high)
        if not black:
            begin, end = inner, outer
        place = size - 1 - i if mirror else i
        total = 0.0
        row = weights[place]
        for j in range(begin, end):
            t = abs((j - middle + 0.5) / stretch)
            if not cubic:
                w = max(0.0, 1 - t)
            elif t < 1:
                w = (1.5 * t - 2.5) * t * t + 1
            else:
                w = ((-0.5 * t + 2.5) * t - 4) * t + 2 if t < 2 else 0.0
            total += w
            if inner <= j < outer:
                row[j - inner] = w
        norm = 1 / total
        for j in range(outer - inner):
            row[j] *= norm
        for j in range(max(outer - inner, 0), row.shape[0]):
            row[j] = 0
        first[place] = min(max(inner, low), high - 1)
        most = max(most, outer - inner)
    return most


@compiled
def _blend_rows(row, s0, s1, w0, w1, start):
    if start:
        for j in range(row.shape[0]):
            row[j] = w0 * f32(s0[j]) + w1 * f32(s1[j])
    else:
        for j in range(row.shape[0]):
            row[j] += w0 * f32(s0[j]) + w1 * f32(s1[j])


@compiled
def _resample(image, box, bounds, mirror, black, cubic, unit, size, planes):
    """Resample image (H, W, C) into planes (C, size * size), values times `unit`."""
    wide, channels = image.shape[1:]
    reach = 4 if cubic else 2
    fy, fx = np.empty(size, np.int64), np.empty(size, np.int64)
    wy = np.empty((size, int(reach * math.ceil(max(box[2] / size, 1.0))) + 2), np.float32)
    wx = np.empty((size, int(reach * math.ceil(max(box[3] / size, 1.0))) + 2), np.float32)
    ky = _taps(box[0], box[2], size, bounds[0], bounds[1], black, False, cubic, fy, wy)
    kx = _taps(box[1], box[3], size, bounds[2], bounds[3], black, mirror, cubic, fx, wx)
    flat = image.reshape(-1)
    width = (bounds[3] - bounds[2]) * channels
    row = np.zeros(width + (kx + 2) * channels, np.float32)  # the last taps of weight 0 read beyond the end
    for y in range(size):
        for k in range(0, ky, 2):
            a = (min(fy[y] + k, bounds[1] - 1) * wide + bounds[2]) * channels
            b = (min(fy[y] + k + 1, bounds[1] - 1) * wide + bounds[2]) * channels
            _blend_rows(
                row[:width], flat[a : a + width], flat[b : b + width], wy[y, k] * unit, wy[y, k + 1] * unit, k == 0
            )
        if channels == 3:
            begin = y * size
            red, green, blue = planes[0, begin:], planes[1, begin:], planes[2, begin:]
            for x in range(size):
                q = np.uint64((fx[x] - bounds[2]) * 3)  # unsigned, as in _copy
                w, w2 = wx[x, 0], wx[x, 1]
                r = w * row[q] + w2 * row[q + np.uint64(3)]
                g = w * row[q + np.uint64(1)] + w2 * row[q + np.uint64(4)]
                b_ = w * row[q + np.uint64(2)] + w2 * row[q + np.uint64(5)]
                for k in range(2, kx):
                    q3, w = q + np.uint64(3 * k), wx[x, k]
                    r += w * row[q3]
                    g += w * row[q3 + np.uint64(1)]
                    b_ += w * row[q3 + np.uint64(2)]
                red[x], green[x], blue[x] = r, g, b_
        else:
            for c in range(channels):
                for x in range(size):
                    total = f32(0)
                    for k in range(kx):
                        total += wx[x, k] * row[(fx[x] - bounds[2] + k) * channels + c]
                    planes[c, y * size + x] = total
    if cubic:
        for c in range(channels):
            scale_clamped(planes[c], f32(1), f32(0))


@compiled
def _load(source, mirror, planes):
    """Split an interleaved image (S, S, C) into planes in 0..1."""
    size, channels, unit = source.shape[0], planes.shape[0], f32(1 / 255)
    for y in range(size):
        row, begin = source[y].reshape(-1), y * size
        if channels == 3:
            r, g, b = planes[0, begin : begin + size], planes[1, begin : begin + size], planes[2, begin : begin + size]
            if mirror:
                for x in range(size):
                    r[size - 1 - x] = f32(row[3 * x]) * unit
                    g[size - 1 - x] = f32(row[3 * x + 1]) * unit
                    b[size - 1 - x] = f32(row[3 * x + 2]) * unit
            else:
                for x in range(size):
                    r[x] = f32(row[3 * x]) * unit
                    g[x] = f32(row[3 * x + 1]) * unit
                    b[x] = f32(row[3 * x + 2]) * unit
        else:
            for c in range(channels):
                for x in range(size):
                    planes[c, begin + (size - 1 - x if mirror else x)] = f32(row[channels * x + c]) * unit


@compiled
def _store(planes, factor, offset, whole, out):
    """Interleave planes into out (n * C), times factor plus offset, cut to whole numbers where out is uint8."""
    channels = planes.shape[0]
    if channels == 3:
        r, g, b = planes[0], planes[1], planes[2]
        f0, f1, f2, o0, o1, o2 = factor[0], factor[1], factor[2], offset[0], offset[1], offset[2]
        if whole:
            for i in range(r.shape[0]):
                out[3 * i] = np.int32(r[i] * f0 + o0)
                out[3 * i + 1] = np.int32(g[i] * f1 + o1)
                out[3 * i + 2] = np.int32(b[i] * f2 + o2)
        else:
            for i in range(r.shape[0]):
                out[3 * i] = r[i] * f0 + o0
                out[3 * i + 1] = g[i] * f1 + o1
                out[3 * i + 2] = b[i] * f2 + o2
    else:
        for c in range(channels):
            for i in range(planes.shape[1]):
                value = planes[c, i] * factor[c] + offset[c]
                out[channels * i + c] = np.int32(value) if whole else value


@entry
def _paint(crops, flips, colors, change, factor, offset, whole, scratch, out):
    size, channels = crops.shape[1], crops.shape[3]
    planes, room = _divide(scratch, size, channels)
    for n in range(crops.shape[0]):
        _load(crops[n], flips[n], planes)
        change(planes, size, colors[n], room)
        _store(planes, factor, offset, whole, out[n].reshape(-1))


@entry
def _render(x, picked, box, bounds, flip, black, cubic, unit, colors, change, factor, offset, whole, scratch, out):
    size, channels = out.shape[2], out.shape[4]
    planes, room = _divide(scratch, size, channels)
    for n in range(out.shape[0]):
        for v in range(out.shape[1]):
            _resample(x[picked[n]], box[n, v], bounds[n, v], flip[n, v], black, cubic, unit, size, planes)
            change(planes, size, colors[n, v], room)
            _store(planes, factor, offset, whole, out[n, v].reshape(-1))


@compiled
def _divide(scratch, size, channels):
    """Return the planes (C, S * S) and the room for blurring: two strips of columns and a padded plane."""
    end = channels * size * size
    return scratch[:end].reshape((channels, size * size)), scratch[end:]


def _scratch(size: int, channels: int) -> NDArray[Any]:
    pitch = 3 * size + 2 * LANES  # for the largest radius, which is 6 or less than the size
    return buffers.scratch("planes", channels * size**2 + (size + 2 * LANES) * pitch, np.float32)


def paint(
    crops: NDArray[np.uint8],
    flips: NDArray[np.bool_],
    colors: NDArray[np.float32],
    factor: NDArray[np.float32],
    offset: NDArray[np.float32],
    out: NDArray[Any],
) -> None:
    """Flip crops (N, S, S, C) and change their colours (N, 8) into out (N, S, S, C), uint8 or float32; may be the same.

    out is value * factor (C,) + offset (C,), value in 0..1; a uint8 out is cut, so that the offset has to round.
    """
    whole, scratch = out.dtype == np.uint8, _scratch(*crops.shape[2:])
    _paint(crops, flips, colors, color_changer(), factor, offset, whole, scratch, out)


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
    """Resample and change images x[picked] (B, H, W, C) into out (B, V, S, S, C), as `paint`.

    x is uint8, uint16 or float32 in 0..1.
    """
    unit, scratch = f32(1 if x.dtype == np.float32 else 1 / np.iinfo(x.dtype).max), _scratch(*out.shape[3:])
    box, bounds, flip, black = places
    whole, change = out.dtype == np.uint8, color_changer()
    fixed = x.view()
    fixed.flags.writeable = False  # one type, and one compilation, for mapped files, arrays and parts of them
    picked, bounds = np.ascontiguousarray(picked), np.require(bounds, requirements=("C", "W"))
    _render(
        fixed, picked, box, bounds, flip, black, cubic, unit, colors, change, factor, offset, whole, scratch, out
    )  # fmt: skip
