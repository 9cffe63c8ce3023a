"""The verdict of an evaluation in one sentence: does the representation help, and what would settle it?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from selfsup.evaluation.draws import crossed
from selfsup.evaluation.score import Score

PREFERRED = ("propagate", "linear")  # the reader that is judged, if it was used; else the first
FEW_STEPS = 50  # of pretraining, below which it hardly began
RIVALS = {
    "untrained": "the untrained encoder",
    "frozen start": "the weights that it began with",
    "from scratch": "training from scratch",
    "from scratch + pool": "training from scratch with the pool",
}


class Gap(NamedTuple):
    """How much better the representation is than another row: mean difference and half-width of its 95% interval."""

    rival: Score
    mean: float
    half: float


def verdict(about: Mapping[str, Any], scores: Sequence[Score]) -> str:
    """Return whether the representation helps, against untrained, from scratch and the baseline, and what settles it.

    It helps where, with some number of labels, it is better than every other row beyond the 95% interval of the
    difference over the draws, widened by the luck of the test samples; it does not where with every number of labels
    some row is as good or better beyond that interval; otherwise it cannot be told. Frozen rows are read like the run's
    own: by propagate if it was used, else by linear, else by the first protocol. Empty where there is no other row.
    """
    task = about["task"]
    readers = list(dict.fromkeys(score.protocol for score in scores if score.representation == task))
    reader = next((name for name in PREFERRED if name in readers), readers[0] if readers else "")
    rows = {(score.representation, score.protocol, score.shots): score for score in scores}
    judged = {}
    for shots in dict.fromkeys(score.shots for score in scores):
        own = rows.get((task, reader, shots))
        others = [
            score
            for (name, protocol, count), score in rows.items()
            if name not in (task, "s4l") and count == shots and protocol in (reader, "trained", "self-trained")
        ]
        if own is not None and others:
            samples = about["test"]["samples"] if about["metric"] == "accuracy" else math.inf
            judged[shots] = own, [_gap(own, other, samples) for other in others]
    if not judged:
        return ""
    won = [shots for shots, (_, gaps) in judged.items() if all(gap.mean > gap.half for gap in gaps)]
    lost = [shots for shots, (_, gaps) in judged.items() if any(gap.mean + gap.half <= 0 for gap in gaps)]
    # the fewest labels with which it helps; else those with which it comes nearest to it
    nearest = max(judged, key=lambda shots: min(gap.mean - gap.half for gap in judged[shots][1]))
    shots = won[0] if won else nearest
    own, gaps = judged[shots]
    closest = min(gaps, key=lambda gap: gap.mean)
    labels = "all labels" if shots is None else f"{shots:,} {about['unit']}"
    if shots == 1:
        labels = labels.replace("labels", "label").replace("samples", "sample").replace("images", "image")
    start = f"with {labels}, {task} ({reader}) reaches {_amount(about, own.mean)}, "
    rivals = RIVALS | {f"untrained {task}": f"the untrained {task}"}
    name = rivals.get(closest.rival.representation, closest.rival.representation)
    difference = (
        f"{_amount(about, abs(closest.mean), closest.half)} {'more' if closest.mean >= 0 else 'less'} than {name}"
    )
    if won:
        return f"It helps: {start}{difference}, the best of the other rows."
    if len(lost) == len(judged):
        return f"It does not help: {start}{difference}.{_longer(about)}"
    return f"It cannot be told whether it helps: {start}{difference}.{_settled(about, own, closest)}"


def _gap(own: Score, other: Score, samples: float) -> Gap:
    if own.grid.shape[1] == other.grid.shape[1]:  # the same draws; of a row that has one seed, for each seed
        gaps = own.grid - other.grid
        mean, half = float(gaps.mean()), crossed(gaps)
    else:
        mean, half = own.mean - other.mean, math.hypot(own.half, other.half)
    half = math.inf if math.isnan(half) and math.isinf(samples) else half  # nothing is known about a single value
    spread = 0.0
    if math.isfinite(samples):  # two proportions of the same test samples, taken as independent: a wide guess
        spread = 1.96 * math.sqrt(sum(p * (1 - p) for p in (own.mean, other.mean)) / samples)
    return Gap(other, mean, spread if math.isnan(half) else math.hypot(half, spread))


def _amount(about: Mapping[str, Any], value: float, half: float | None = None) -> str:
    digits, factor, unit = (2, 1, "") if about["metric"] == "R²" else (1, 100, "%" if half is None else " points")
    around = "" if half is None or not math.isfinite(half) else f" ± {factor * half:.{digits}f}"
    return f"{factor * value:.{digits}f}{around}{unit}"


def _settled(about: Mapping[str, Any], own: Score, closest: Gap) -> str:
    """Return what would make the interval narrower than the difference, or the difference larger."""
    ways = []
    if own.grid.shape[1] < 3:
        ways.append("more draws (--draws)")
    wanted = (closest.half / max(abs(closest.mean), 0.01)) ** 2
    if about["metric"] == "accuracy" and about["test"]["samples"] < 1000:
        needed = about["test"]["samples"] * min(wanted, 100)
        ways.append(f"about {_round(needed):,} labelled test samples instead of {about['test']['samples']:,}")
    if about.get("steps", math.inf) < 1000:
        ways.append(f"longer pretraining than {about['steps']:,} steps")
    elif not ways:
        ways.append("more draws (--draws) or more test samples")
    return f" What would settle it: {', or '.join(ways)}."


def _longer(about: Mapping[str, Any]) -> str:
    steps = about.get("steps", math.inf)
    return f" It was pretrained for {steps:,} steps only." if steps < 1000 else ""


def _round(value: float) -> int:
    digits = max(0, len(str(int(value))) - 1)
    return int(math.ceil(value / 10**digits) * 10**digits)
