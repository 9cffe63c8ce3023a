"""The compiled colour operations of a view: jitter, gray, blur, solarize on planes, float32 in 0..1."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import cfunc, njit, types

from selfsup.views.image.draw import BRIGHTNESS, CONTRAST, GRAY, HUE, ORDER, ORDERS, SATURATION, SIGMA, SOLARIZE

f32 = np.float32
OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": True, "error_model": "numpy"}


def compiled(function: Callable[..., Any], inline: bool = True) -> Any:
    """Compile on first use; without a writable place for the cache compile in each process.

    All but the entry points are inlined. A function that is not has one copy of machine code by itself and one in each
    caller, which round differently (fastmath); which of them runs depends on what was compiled here and what came from
    the cache, so that a resumed run would not see the same pixels.

    A closure takes what it closes over into its name: numba's cache gives one closure the code of another of the same
    name, where they were compiled in different processes.
    """
    for cell in function.__closure__ or ():
        function.__qualname__ += f"_{cell.cell_contents}"
    options = dict(OPTIONS)
    if inline:
        options |= {"forceinline": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return _cached(njit, function, **options)


def _cached(decorator: Callable[..., Any], function: Callable[..., Any], *given: Any, **options: Any) -> Any:
    try:
        return decorator(*given, cache=True, **options)(function)
    except RuntimeError:  # there is no place for the cache that can be written
        return decorator(*given, **options)(function)


@compiled
def scale_clamped(plane, factor, offset):
    """Multiply and add, clamped to 0..1."""
    for i in range(plane.shape[0]):
        plane[i] = min(f32(1), max(f32(0), plane[i] * factor + offset))


@compiled
def _mean(planes):
    """Return the mean of the gray image (of all channels where there are not three)."""
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


@compiled
def _saturate(r, g, b, factor):
    rest = f32(1) - factor
    for i in range(r.shape[0]):
        gray = rest * (f32(0.299) * r[i] + f32(0.587) * g[i] + f32(0.114) * b[i])
        r[i] = min(f32(1), max(f32(0), r[i] * factor + gray))
        g[i] = min(f32(1), max(f32(0), g[i] * factor + gray))
        b[i] = min(f32(1), max(f32(0), b[i] * factor + gray))


@compiled
def _shift_hue(r, g, b, turns):
    """Shift the hue by `turns` in -0.5..0.5: to HSV and back without a branch, hue counted in sixths."""
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


@compiled
def _gray(r, g, b):
    for i in range(r.shape[0]):
        r[i] = f32(0.299) * r[i] + f32(0.587) * g[i] + f32(0.114) * b[i]
        g[i] = r[i]
        b[i] = r[i]


@compiled
def _jitter(planes, color):
    rgb = planes.shape[0] == 3
    for step in range(4):
        op = ORDERS[int(color[ORDER]), step]
        if op == 0:
            for c in range(planes.shape[0]):
                scale_clamped(planes[c], color[BRIGHTNESS], f32(0))
        elif op == 1:
            offset = (f32(1) - color[CONTRAST]) * _mean(planes)
            for c in range(planes.shape[0]):
                scale_clamped(planes[c], color[CONTRAST], offset)
        elif op == 2 and rgb:
            _saturate(planes[0], planes[1], planes[2], color[SATURATION])
        elif op == 3 and rgb:
            _shift_hue(planes[0], planes[1], planes[2], color[HUE])


LANES = 16


def _weighers(step: int) -> tuple[Any, Any]:
    """Return functions that weigh 3 and 6 neighbours to each side, `step` apart.

    Written out, with every distance a constant: only so does the compiler make vector instructions of them.
    """

    @compiled
    def three(s, w, out):
        w0, w1, w2, w3 = w[0], w[1], w[2], w[3]
        for i in range(out.shape[0]):
            near = w0 * s[i + 3 * step] + w1 * (s[i + 2 * step] + s[i + 4 * step])
            out[i] = near + w2 * (s[i + step] + s[i + 5 * step]) + w3 * (s[i] + s[i + 6 * step])

    @compiled
    def six(s, w, out):
        w0, w1, w2, w3, w4, w5, w6 = w[0], w[1], w[2], w[3], w[4], w[5], w[6]
        for i in range(out.shape[0]):
            near = w0 * s[i + 6 * step] + w1 * (s[i + 5 * step] + s[i + 7 * step])
            near += w2 * (s[i + 4 * step] + s[i + 8 * step]) + w3 * (s[i + 3 * step] + s[i + 9 * step])
            far = w4 * (s[i + 2 * step] + s[i + 10 * step]) + w5 * (s[i + step] + s[i + 11 * step])
            out[i] = near + far + w6 * (s[i] + s[i + 12 * step])

    return three, six


PITCH = 256  # of the padded plane in which views of 96 to 256 pixels are blurred
_across3, _across6 = _weighers(1)
_down3, _down6 = _weighers(LANES)
_below3, _below6 = _weighers(PITCH)


@compiled
def _weigh(source, w, radius, down, out):
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
        step = LANES if down else 1
        for i in range(out.shape[0]):
            out[i] = w[0] * source[i + radius * step]
        for k in range(1, radius + 1):
            left, right = source[(radius - k) * step :], source[(radius + k) * step :]
            for i in range(out.shape[0]):
                out[i] += w[k] * (left[i] + right[i])


@compiled
def copy_numbers(source, begin, count, target, place):
    """Copy numbers; numba would compile the message of unequal shapes, for seconds, with each `a[:] = b`."""
    a, b = np.uint64(begin), np.uint64(place)  # unsigned: no check for negative positions, which would stop vectors
    if count == LANES:
        for x in range(LANES):
            target[b + np.uint64(x)] = source[a + np.uint64(x)]
    else:
        for x in range(count):
            target[b + np.uint64(x)] = source[a + np.uint64(x)]


@compiled
def _blur_rows(plane, size, w, radius, room):
    """Blur row by row: the rows around it are a constant distance away in the padded plane, and in the first cache."""
    last = size - 1
    line, padded = room[: size + 2 * radius], room[size + 2 * radius :]
    for y in range(size + 2 * radius):
        inner = max(last - abs(last - abs(y - radius)), 0)
        copy_numbers(plane, inner * size, size, padded, y * PITCH)
    for y in range(size):
        out = plane[y * size : y * size + size]
        if radius == 3:
            _below3(padded[y * PITCH :], w, line[radius : radius + size])
        else:
            _below6(padded[y * PITCH :], w, line[radius : radius + size])
        for x in range(radius):
            line[radius - 1 - x] = line[radius + x + 1]
            line[radius + size + x] = line[radius + last - x - 1]
        if radius == 3:
            _across3(line, w, out)
        else:
            _across6(line, w, out)


@compiled
def _blur(plane, size, sigma, room):
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
    if radius <= 6 and 96 <= size <= PITCH:
        _blur_rows(plane, size, w, radius, room)
        return
    # columns first, in strips of 16 so that the neighbours above and below are a constant distance away
    high, pitch, last = size + 2 * radius, size + 2 * radius + LANES, size - 1
    strip, done, rows = room[: high * LANES], room[high * LANES : 2 * high * LANES], room[2 * high * LANES :]
    for x0 in range(0, size, LANES):
        count = min(LANES, size - x0)
        for y in range(high):
            inner = max(last - abs(last - abs(y - radius)), 0)
            copy_numbers(plane, inner * size + x0, count, strip, y * LANES)
        _weigh(strip, w, radius, True, done[: size * LANES])
        for y in range(size):
            copy_numbers(done, y * LANES, LANES, rows, y * pitch + radius + x0)
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
            copy_numbers(out, y * pitch, size, plane, (y0 + y) * size)


def _change_colors(planes, size, color, room):
    rgb = planes.shape[0] == 3
    if color[ORDER] >= 0:
        _jitter(planes, color)
    if color[GRAY] > 0 and rgb:
        _gray(planes[0], planes[1], planes[2])
    if color[SIGMA] > 0:
        for c in range(planes.shape[0]):
            if c > 0 and rgb and color[GRAY] > 0:
                copy_numbers(planes[0], 0, size * size, planes[c], 0)
            else:
                _blur(planes[c], size, color[SIGMA], room)
    if color[SOLARIZE] > 0:
        for c in range(planes.shape[0]):
            plane = planes[c]
            for i in range(plane.shape[0]):
                plane[i] = f32(1) - plane[i] if plane[i] >= f32(0.5) else plane[i]


@functools.cache
def color_changer() -> Any:
    """Return the function (planes, size, color, room) that changes planes by the parameters of `draw.color_params`.

    Nine tenths of the engine's code, and of the time to compile it: one copy, which its callers are given and call by
    its address, whatever the types of their images.
    """
    line = types.Array(types.float32, 1, "C")
    signature = types.void(types.Array(types.float32, 2, "C"), types.int64, line, line)
    return _cached(cfunc, _change_colors, signature, **OPTIONS)
