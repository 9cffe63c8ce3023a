"""Line charts as inline SVG, in the colours of the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from selfsup.reports.page import Html, escape, join, tag

Place = Callable[[float, float], tuple[float, float]]
WIDE, HIGH = 440, 270
LEFT, RIGHT, TOP, BOTTOM = 48, 14, 28, 40


@dataclass(frozen=True)
class Line:
    """A line through `points` (x, y), in ascending x; `half` the half-width of the interval around each y, if any.

    nan where a point has none: the band ends before it.
    """

    name: str
    points: Sequence[tuple[float, float]]
    half: Sequence[float] | None = None
    colour: int = 0
    marks: bool = False


def chart(
    title: str,
    lines: Sequence[Line],
    *,
    below: str,
    ticks: Sequence[tuple[float, str]] | None = None,
    reference: tuple[float, str] | None = None,
    log: bool = False,
    percent: bool = False,
) -> Html:
    """Return a chart, with a description for screen readers.

    Args:
        title: Name of the y axis.
        lines: At least one point in all.
        below: Name of the x axis.
        ticks: Positions and labels on the x axis; by default round numbers.
        reference: A value that is drawn as a horizontal line, and its name.
        log: Whether the x axis is logarithmic.
        percent: Whether values are fractions, shown as percent.
    """
    xs = [x for line in lines for x, _ in line.points]
    lowest, highest = (0.0, 1.0) if percent else (-math.inf, math.inf)
    heights = [y for line in lines for y in _heights(line)] + ([reference[0]] if reference else [])
    low, high, step = _round_range(max(min(heights), lowest), min(max(heights), highest))
    across = math.log if log else float
    first, last = across(min(xs)), across(max(xs))

    def place(x: float, y: float) -> tuple[float, float]:
        y = min(max(y, low), high)  # an interval may extend beyond the possible values
        position = (across(x) - first) / (last - first) if last > first else 0.5
        return LEFT + position * (WIDE - LEFT - RIGHT), HIGH - BOTTOM - (y - low) / (high - low) * (HIGH - TOP - BOTTOM)

    parts: list[object] = [tag("title", _words(title, lines, reference, percent))]
    for number in range(round((high - low) / step) + 1):
        height = low + number * step
        y = place(min(xs), height)[1]
        parts.append(_stroke("grid", [(LEFT, y), (WIDE - RIGHT, y)]))
        parts.append(_text(LEFT - 6, y + 4, _number(height, percent, step), "end"))
    free = math.inf
    for x, word in reversed(ticks or _round_ticks(min(xs), max(xs))):
        at = place(x, low)[0]
        if at + 4 * len(word) < free:  # of labels that would overlap, the last one stays
            free = at - 4 * len(word) - 6
            parts.append(_text(at, HIGH - BOTTOM + 18, word, "middle"))
    parts.append(_text((LEFT + WIDE - RIGHT) / 2, HIGH - 5, below, "middle"))
    parts.append(tag("text", title, x=6, y=15, class_="title"))
    if reference:
        y = place(min(xs), reference[0])[1]
        parts.append(_stroke("reference", [(LEFT, y), (WIDE - RIGHT, y)]))
        parts.append(_text(WIDE - RIGHT - 2, y - 5 if y > TOP + 14 else y + 14, reference[1], "end"))
    parts += [tag("g", *_draw(line, place), class_=f"s{line.colour % 10}") for line in lines]
    drawing = tag("svg", *parts, viewBox=f"0 0 {WIDE} {HIGH}", role="img")
    return tag("div", drawing, class_="chart")


def legend(names: Sequence[tuple[str, str]]) -> Html:
    """Return a legend of the colours, from (CSS class, name)."""
    return tag("ul", *(tag("li", name, class_=colour) for colour, name in names), class_="legend")


def _draw(line: Line, place: Place) -> list[Html]:
    points = [place(x, y) for x, y in line.points]
    parts = []
    known = [(x, y, h) for (x, y), h in zip(line.points, line.half or (), strict=bool(line.half)) if math.isfinite(h)]
    if len(known) > 1:
        upper, lower = ([place(x, y + side * h) for x, y, h in known] for side in (1, -1))
        parts.append(tag("polygon", points=_path(upper + lower[::-1]), class_="band"))
    parts.append(_stroke("line", points))
    if line.marks or len(points) == 1:
        parts += [tag("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=3.5, class_="mark") for x, y in points]
    return parts


def _heights(line: Line) -> list[float]:
    halves = line.half or [0.0] * len(line.points)
    known = [0.0 if math.isnan(half) else half for half in halves]
    return [y + side * half for (_, y), half in zip(line.points, known, strict=True) for side in (-1, 1)]


def _words(title: str, lines: Sequence[Line], reference: tuple[float, str] | None, percent: bool) -> str:
    told = [
        f"{line.name}: from {_exact(line.points[0][1], percent)} to {_exact(line.points[-1][1], percent)}"
        for line in lines
    ]
    told += [f"{reference[1]}: {_exact(reference[0], percent)}"] if reference else []
    return f"{title}. " + "; ".join(told)


def _round_range(low: float, high: float) -> tuple[float, float, float]:
    """Return a range of whole steps around the values, and the step (1, 2 or 5 times a power of ten)."""
    width = max(high - low, abs(high) * 0.1, 1e-6)
    power = 10 ** math.floor(math.log10(width / 4))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= width / 5)
    bottom, top = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    if top - bottom < 2.5 * step:  # nearly constant: the line belongs in the middle
        bottom -= step * (low < 0 or bottom >= step)
        top += step * (high != 1)
    return bottom, max(top, bottom + step), step


def _round_ticks(low: float, high: float) -> list[tuple[float, str]]:
    bottom, top, step = _round_range(low, high)
    marks = (bottom + number * step for number in range(round((top - bottom) / step) + 1))
    return [(mark, f"{mark:,g}") for mark in marks if low <= mark <= high]


def _number(value: float, percent: bool, step: float) -> str:
    if percent:
        return f"{100 * value:.{0 if step >= 0.0099 else 1}f}%"
    places = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:,.{places}f}" if places < 5 else f"{value:.1e}"


def _exact(value: float, percent: bool) -> str:
    return f"{value:.1%}" if percent else f"{value:.4g}"


def _stroke(css: str, points: Sequence[tuple[float, float]]) -> Html:
    return tag("polyline", points=_path(points), class_=css)


def _path(points: Sequence[tuple[float, float]]) -> Html:
    return join((escape(f"{x:.1f},{y:.1f}") for x, y in points), " ")


def _text(x: float, y: float, words: str, anchor: str) -> Html:
    return tag("text", words, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor)
