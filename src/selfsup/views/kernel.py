"""The compiled engine: resampling and appearance of pictures, one pass a view, without the interpreter's lock.

Planes are float32 in 0..1. The first use compiles (some seconds, kept on disk by numba's cache). `reference.py` does the
same with torch alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

from selfsup.data import buffers
from selfsup.views.draw import BRIGHTNESS, CONTRAST, GRAY, HUE, ORDER, ORDERS, SATURATION, SIGMA, SOLARIZE, Places

F = TypeVar("F", bound=Callable[..., Any])
f32 = np.float32


def _compiled(function: F) -> F:
    """Compile on first use; without a writable place for the cache compile in each process."""
    options: dict[str, Any] = {"nogil": True, "fastmath": True, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(function)  # type: ignore[no-any-return]
    except RuntimeError:
        return njit(**options)(function)  # type: ignore[no-any-return]


@_compiled
def _taps(start, length, size, low, high, black, mirror, cubic, first, weights):  # type: ignore[no-untyped-def]
    """Fill the weights with which `size` output pixels see the input, antialiased; return the most taps of a pixel."""
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
        share = 1 / total
        for j in range(outer - inner):
            row[j] *= share
        for j in range(max(outer - inner, 0), row.shape[0]):
            row[j] = 0
        first[place] = min(max(inner, low), high - 1)
        most = max(most, outer - inner)
    return most


@_compiled
def _blend_rows(row, s0, s1, w0, w1, start):  # type: ignore[no-untyped-def]
    if start:
        for j in range(row.shape[0]):
            row[j] = w0 * f32(s0[j]) + w1 * f32(s1[j])
    else:
        for j in range(row.shape[0]):
            row[j] += w0 * f32(s0[j]) + w1 * f32(s1[j])


@_compiled
def _resample(picture, box, bounds, mirror, black, cubic, unit, size, planes):  # type: ignore[no-untyped-def]
    """Fill planes (C, size * size) from picture (H, W, C), values times `unit`."""
    wide, channels = picture.shape[1:]
    reach = 4 if cubic else 2
    fy, fx = np.empty(size, np.int64), np.empty(size, np.int64)
    wy = np.empty((size, int(reach * math.ceil(max(box[2] / size, 1.0))) + 2), np.float32)
    wx = np.empty((size, int(reach * math.ceil(max(box[3] / size, 1.0))) + 2), np.float32)
    ky = _taps(box[0], box[2], size, bounds[0], bounds[1], black, False, cubic, fy, wy)
    kx = _taps(box[1], box[3], size, bounds[2], bounds[3], black, mirror, cubic, fx, wx)
    flat = picture.reshape(-1)
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
            _scale(planes[c], f32(1), f32(0))


@_compiled
def _scale(plane, factor, offset):  # type: ignore[no-untyped-def]
    """Multiply and add, clamped to 0..1."""
    for i in range(plane.shape[0]):
        plane[i] = min(f32(1), max(f32(0), plane[i] * factor + offset))


@_compiled
def _mean(planes):  # type: ignore[no-untyped-def]
    """Return the mean of the gray picture (of all channels where there are not three)."""
    total = 0.0
    if planes.shape[0] == 3:
        r, g, b = planes[0], planes[1], planes[2]
        for i in range(planes.shape[1]):
            total += f32(0.299) * r[i] + f32(0.587) * g[i] + f32(0.114) * b[i]
        return f32(total / planes.shape[1])
    for c in range(planes.shape[0]):
        plane = planes[c]
        for i in range(planes.shape[1]):
            total += plane[i]
    return f32(total / planes.size)


@_compiled
def _saturate(r, g, b, factor):  # type: ignore[no-untyped-def]
    rest = f32(1) - factor
    for i in range(r.shape[0]):
        gray = rest * (f32(0.299) * r[i] + f32(0.587) * g[i] + f32(0.114) * b[i])
        r[i] = min(f32(1), max(f32(0), r[i] * factor + gray))
        g[i] = min(f32(1), max(f32(0), g[i] * factor + gray))
        b[i] = min(f32(1), max(f32(0), b[i] * factor + gray))


@_compiled
def _turn_hue(r, g, b, turns):  # type: ignore[no-untyped-def]
    """Turn the hue by `turns` in -0.5..0.5: to HSV and back without a branch, hue counted in sixths."""
    shift = f32(6) * turns
    for i in range(r.shape[0]):
        value = max(r[i], max(g[i], b[i]))
        chroma = value - min(r[i], min(g[i], b[i]))
        per = f32(1) / max(chroma, f32(1e-9))
        hue = (b[i] - r[i]) * per + f32(2) if value == g[i] else (r[i] - g[i]) * per + f32(4)
        hue = (g[i] - b[i]) * per if value == r[i] else hue
        hue += shift  # in -4..8: eleven, nine and seven keep it positive
        k = hue + f32(11)
        k -= f32(6) * f32(np.int32(k * f32(1 / 6)))
        r[i] = value - chroma * max(f32(0), min(f32(1), min(k, f32(4) - k)))
        k = hue + f32(9)
        k -= f32(6) * f32(np.int32(k * f32(1 / 6)))
        g[i] = value - chroma * max(f32(0), min(f32(1), min(k, f32(4) - k)))
        k = hue + f32(7)
        k -= f32(6) * f32(np.int32(k * f32(1 / 6)))
        b[i] = value - chroma * max(f32(0), min(f32(1), min(k, f32(4) - k)))


@_compiled
def _gray(r, g, b):  # type: ignore[no-untyped-def]
    for i in range(r.shape[0]):
        r[i] = f32(0.299) * r[i] + f32(0.587) * g[i] + f32(0.114) * b[i]
        g[i] = r[i]
        b[i] = r[i]


@_compiled
def _jitter(planes, look):  # type: ignore[no-untyped-def]
    colour = planes.shape[0] == 3
    for step in range(4):
        op = ORDERS[int(look[ORDER]), step]
        if op == 0:
            for c in range(planes.shape[0]):
                _scale(planes[c], look[BRIGHTNESS], f32(0))
        elif op == 1:
            offset = (f32(1) - look[CONTRAST]) * _mean(planes)
            for c in range(planes.shape[0]):
                _scale(planes[c], look[CONTRAST], offset)
        elif op == 2 and colour:
            _saturate(planes[0], planes[1], planes[2], look[SATURATION])
        elif op == 3 and colour:
            _turn_hue(planes[0], planes[1], planes[2], look[HUE])


_LANES = 16


def _weighers(step: int) -> tuple[Any, Any]:
    """Return functions that weigh 3 and 6 neighbours to each side, `step` apart.

    Written out, with every distance a constant: only so does the compiler make vector instructions of them.
    """

    @_compiled
    def three(s, w, out):  # type: ignore[no-untyped-def]
        w0, w1, w2, w3 = w[0], w[1], w[2], w[3]
        for i in range(out.shape[0]):
            near = w0 * s[i + 3 * step] + w1 * (s[i + 2 * step] + s[i + 4 * step])
            out[i] = near + w2 * (s[i + step] + s[i + 5 * step]) + w3 * (s[i] + s[i + 6 * step])

    @_compiled
    def six(s, w, out):  # type: ignore[no-untyped-def]
        w0, w1, w2, w3, w4, w5, w6 = w[0], w[1], w[2], w[3], w[4], w[5], w[6]
        for i in range(out.shape[0]):
            near = w0 * s[i + 6 * step] + w1 * (s[i + 5 * step] + s[i + 7 * step])
            near += w2 * (s[i + 4 * step] + s[i + 8 * step]) + w3 * (s[i + 3 * step] + s[i + 9 * step])
            far = w4 * (s[i + 2 * step] + s[i + 10 * step]) + w5 * (s[i + step] + s[i + 11 * step])
            out[i] = near + far + w6 * (s[i] + s[i + 12 * step])

    return three, six


_across3, _across6 = _weighers(1)
_down3, _down6 = _weighers(_LANES)


@_compiled
def _weigh(source, w, radius, down, out):  # type: ignore[no-untyped-def]
    """Weigh `radius` neighbours to each side, whatever the radius."""
    if radius == 3 and down:
        _down3(source, w, out)
    elif radius == 3:
        _across3(source, w, out)
    elif radius == 6 and down:
        _down6(source, w, out)
    elif radius == 6:
        _across6(source, w, out)
    else:
        step = _LANES if down else 1
        for i in range(out.shape[0]):
            out[i] = w[0] * source[i + radius * step]
        for k in range(1, radius + 1):
            left, right = source[(radius - k) * step :], source[(radius + k) * step :]
            for i in range(out.shape[0]):
                out[i] += w[k] * (left[i] + right[i])


@_compiled
def _copy(source, begin, count, target, place):  # type: ignore[no-untyped-def]
    a, b = np.uint64(begin), np.uint64(place)  # unsigned: no check for negative positions, which would stop vectors
    if count == _LANES:
        for x in range(_LANES):
            target[b + np.uint64(x)] = source[a + np.uint64(x)]
    else:
        for x in range(count):
            target[b + np.uint64(x)] = source[a + np.uint64(x)]


@_compiled
def _blur(plane, size, sigma, room):  # type: ignore[no-untyped-def]
    """Blur a plane (size * size) with a Gaussian cut at 3 sigma; the border reflects without repeating the edge."""
    reach = min(math.ceil(3 * sigma), size - 1)
    if reach < 1:
        return
    radius = 3 if reach <= 3 else max(reach, 6)  # what lies beyond the reach weighs 0
    w = np.zeros(radius + 1, np.float32)
    total = 0.0
    for k in range(reach + 1):
        w[k] = math.exp(-0.5 * (k / sigma) ** 2)
        total += w[k] if k == 0 else 2 * w[k]
    w /= f32(total)
    # columns first, in strips of 16 so that the neighbours above and below are a constant distance away
    high, pitch, last = size + 2 * radius, size + 2 * radius + _LANES, size - 1
    strip, done, rows = room[: high * _LANES], room[high * _LANES : 2 * high * _LANES], room[2 * high * _LANES :]
    for x0 in range(0, size, _LANES):
        count = min(_LANES, size - x0)
        for y in range(high):
            inner = max(last - abs(last - abs(y - radius)), 0)
            _copy(plane, inner * size + x0, count, strip, y * _LANES)
        _weigh(strip, w, radius, True, done[: size * _LANES])
        for y in range(size):
            _copy(done, y * _LANES, _LANES, rows, y * pitch + radius + x0)
    for y0 in range(0, size, 8):  # eight rows are one long loop for the vector unit and stay in the first cache
        count = min(8, size - y0)
        for y in range(y0, y0 + count):
            row = rows[y * pitch : y * pitch + high]
            for x in range(radius):
                inner = min(x + 1, last)
                row[radius - 1 - x] = row[radius + inner]
                row[radius + size + x] = row[radius + last - inner]
        out = room[: count * pitch - 2 * radius]  # the strips are done with
        _weigh(rows[y0 * pitch :], w, radius, False, out)
        for y in range(count):
            plane[(y0 + y) * size : (y0 + y + 1) * size] = out[y * pitch : y * pitch + size]


@_compiled
def _appear(planes, size, look, room):  # type: ignore[no-untyped-def]
    """Change the planes as the look says."""
    colour = planes.shape[0] == 3
    if look[ORDER] >= 0:
        _jitter(planes, look)
    if look[GRAY] > 0 and colour:
        _gray(planes[0], planes[1], planes[2])
    if look[SIGMA] > 0:
        for c in range(planes.shape[0]):
            if c > 0 and colour and look[GRAY] > 0:
                planes[c] = planes[0]
            else:
                _blur(planes[c], size, look[SIGMA], room)
    if look[SOLARIZE] > 0:
        for c in range(planes.shape[0]):
            plane = planes[c]
            for i in range(plane.shape[0]):
                plane[i] = f32(1) - plane[i] if plane[i] >= f32(0.5) else plane[i]


@_compiled
def _load(source, mirror, planes):  # type: ignore[no-untyped-def]
    """Split an interleaved picture (S, S, C) into planes in 0..1."""
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


@_compiled
def _store(planes, factor, offset, whole, out):  # type: ignore[no-untyped-def]
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


@_compiled
def _paint(crops, flips, looks, factor, offset, whole, scratch, out):  # type: ignore[no-untyped-def]
    size, channels = crops.shape[1], crops.shape[3]
    planes, room = _divide(scratch, size, channels)
    for n in range(crops.shape[0]):
        _load(crops[n], flips[n], planes)
        _appear(planes, size, looks[n], room)
        _store(planes, factor, offset, whole, out[n].reshape(-1))


@_compiled
def _render(x, picked, box, bounds, flip, black, cubic, unit, looks, factor, offset, whole, scratch, out):  # type: ignore[no-untyped-def]
    size, channels = out.shape[2], out.shape[4]
    planes, room = _divide(scratch, size, channels)
    for n in range(out.shape[0]):
        for v in range(out.shape[1]):
            _resample(x[picked[n]], box[n, v], bounds[n, v], flip[n, v], black, cubic, unit, size, planes)
            _appear(planes, size, looks[n, v], room)
            _store(planes, factor, offset, whole, out[n, v].reshape(-1))


@_compiled
def _divide(scratch, size, channels):  # type: ignore[no-untyped-def]
    """Return the planes (C, S * S) and the room for blurring: two strips of columns and a padded plane."""
    end = channels * size * size
    return scratch[:end].reshape((channels, size * size)), scratch[end:]


def _scratch(size: int, channels: int) -> NDArray[Any]:
    pitch = 3 * size + 2 * _LANES  # for the largest radius, which is 6 or less than the size
    return buffers.scratch("planes", channels * size**2 + (size + 2 * _LANES) * pitch, np.float32)


def paint(
    crops: NDArray[np.uint8],
    flips: NDArray[np.bool_],
    looks: NDArray[np.float32],
    factor: NDArray[np.float32],
    offset: NDArray[np.float32],
    out: NDArray[Any],
) -> None:
    """Flip crops (N, S, S, C) and change them by looks (N, 8) into out (N, S, S, C), uint8 or float32; may be the same.

    out is value * factor (C,) + offset (C,), value in 0..1; a uint8 out is cut, so that the offset has to round.
    """
    _paint(crops, flips, looks, factor, offset, out.dtype == np.uint8, _scratch(*crops.shape[2:]), out)


def render(
    x: NDArray[Any],
    picked: NDArray[np.int64],
    places: Places,
    cubic: bool,
    looks: NDArray[np.float32],
    factor: NDArray[np.float32],
    offset: NDArray[np.float32],
    out: NDArray[Any],
) -> None:
    """Resample and change pictures x[picked] (B, H, W, C), uint8 or uint16, into out (B, V, S, S, C), as `paint`."""
    unit, scratch = f32(1 / np.iinfo(x.dtype).max), _scratch(*out.shape[3:])
    box, bounds, flip, black = places
    _render(
        x, picked, box, bounds, flip, black, cubic, unit, looks, factor, offset, out.dtype == np.uint8, scratch, out
    )
