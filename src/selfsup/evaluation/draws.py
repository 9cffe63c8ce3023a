"""How labels are drawn for a label-efficiency curve, and the interval over draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from selfsup.errors import UserError

RESAMPLES = 2000
Shots = int | None  # labels per class; None: all of them


class Interval(NamedTuple):
    """A mean with the half-width of its 95% interval: `mean ± half` over `n` values; `half` is nan for one value."""

    mean: float
    half: float
    n: int


def interval(values: Sequence[float]) -> Interval:
    """Return the mean of independent values with its 95% Student t interval.

    Over draws of labels it covers only the luck of the draw: neither another test set nor another pretraining seed. It
    assumes that the values are nearly normal: where accuracies are skewed (few classes, few labels) it covers the mean
    in 92–94% of experiments.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.size == 0:
        raise UserError("an interval needs at least one value")
    if x.size == 1:
        return Interval(float(x[0]), float("nan"), 1)
    half = stdtrit(x.size - 1, 0.975) * x.std(ddof=1) / np.sqrt(x.size)
    return Interval(float(x.mean()), float(half), int(x.size))


def crossed(x: NDArray[np.float64]) -> float:
    """Return the half-width of the 95% interval of the mean of scores (seeds, draws); nan for a single score.

    Seeds and draws are crossed: the variance of the mean is the sum of what seeds and what draws add (what both share
    counts twice, so it is rather too wide), Student's t with Satterthwaite's degrees of freedom. With one seed it is
    over draws alone, as `interval`.
    """
    parts = [(x.mean(axis).var(ddof=1) / n, n - 1) for axis, n in ((1, x.shape[0]), (0, x.shape[1])) if n > 1]
    total = sum(part for part, _ in parts)
    if not parts or total == 0:
        return 0.0 if parts else float("nan")
    freedom = total**2 / sum(part**2 / df for part, df in parts)
    return float(stdtrit(freedom, 0.975) * total**0.5)


class Middle(NamedTuple):
    """An interquartile mean with its 95% interval."""

    mean: float
    low: float
    high: float


def iqm(values: Sequence[float]) -> Middle:
    """Return the interquartile mean of the results of runs, with its 95% bootstrap interval (Agarwal et al., 2021).

    A quarter of the values is left out at either end, rounded down: of 3 runs it is the mean. The interval is the
    percentile bootstrap over runs, spread as by `widening`. Raises `UserError` for fewer than two values.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.size < 2:
        raise UserError("an interval over runs needs at least two of them: give more --seeds")
    rows = np.random.default_rng(0).integers(0, x.size, (RESAMPLES, x.size))
    cut = x.size // 4
    mean, *means = np.sort(np.concatenate([x[None], x[rows]]), axis=1)[:, cut : x.size - cut].mean(1)
    low, high = np.quantile(mean + widening(x.size) * (np.array(means) - mean), (0.025, 0.975))
    return Middle(float(mean), float(low), float(high))


def widening(draws: int) -> float:
    """Return by how much resampled means of so many values are spread, to vary as Student's t interval says.

    A few values that are drawn again from themselves vary too little.
    """
    return float(stdtrit(draws - 1, 0.975) / 1.96 * np.sqrt(draws / (draws - 1))) if draws > 1 else 1.0


def nested_draws(
    labels: NDArray[np.int64], shots: Sequence[Shots], draws: int, seed: int
) -> list[dict[Shots, NDArray[np.int64]]]:
    """Draw the same number of labels of every class, several times.

    Args:
        labels: class ids (N,) int64, -1 where there is no label.
        shots: labels per class; None takes every label and is the same in every draw, so measure it once.
        draws: how many independent draws.
        seed: draw i of class c depends on (seed, i, c) and that class's labels alone.

    Returns:
        One dict per draw: for every entry of `shots` the sorted indices of the samples drawn. Draws are nested: those
        at 5 contain those at 1. A class with fewer labels gives all it has, see `short_classes`.

    Raises:
        UserError: no labels, labels of one class only, or more shots than any class has.
    """
    known, _ = _count(labels, shots)
    if draws < 1:
        raise UserError(f"draws must be at least 1, not {draws}")
    members = {int(c): np.flatnonzero(labels == c) for c in known}
    return [_draw(members, shots, seed, i) for i in range(draws)]


def nested_subsets(
    samples: int, shots: Sequence[Shots], draws: int, seed: int, fewest: int = 2
) -> list[dict[Shots, NDArray[np.int64]]]:
    """Draw samples whatever their labels are, for numbers and several labels per sample; else like `nested_draws`.

    Args:
        samples: how many there are.
        shots: how many samples in all, not per class; None takes all.
        draws: how many independent draws.
        seed: draw i depends on (seed, i).
        fewest: samples that make sense.

    Raises:
        UserError: fewer than `fewest` samples asked for, or more than there are.
    """
    asked = [k for k in shots if k is not None]
    if asked and min(asked) < fewest:
        raise UserError(f"shots are samples here, at least {fewest}, not {min(asked)}")
    if asked and max(asked) > samples:
        raise UserError(f"{max(asked)} labelled samples asked for, but there are {samples}")
    return [_draw({0: np.arange(samples)}, shots, seed, i) for i in range(draws)]


def short_classes(labels: NDArray[np.int64], shots: Sequence[Shots]) -> dict[int, list[int]]:
    """Return, for every number of shots that some class cannot give, the ids of those classes.

    A class without any label is not found here: compare `labels` with the list of classes for that.
    """
    known, counts = _count(labels, shots)
    short = {k: known[counts < k].tolist() for k in shots if k is not None}
    return {k: classes for k, classes in short.items() if classes}


def _count(labels: NDArray[np.int64], shots: Sequence[Shots]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the classes that have labels and how many each has; check both arguments."""
    known, counts = np.unique(labels[labels >= 0], return_counts=True)
    if len(known) == 0:
        raise UserError("no labels: nothing can be drawn; give labels, or use the label-free measures")
    if len(known) == 1:
        raise UserError(f"all {counts[0]} labels are of one class; a classifier needs at least two")
    asked = [k for k in shots if k is not None]
    if asked and min(asked) < 1:
        raise UserError(f"shots are at least 1 label per class, not {min(asked)}")
    if asked and max(asked) > counts.max():
        raise UserError(f"{max(asked)} labels per class asked for, but no class has more than {counts.max()}")
    return known, counts


def _draw(
    members: dict[int, NDArray[np.int64]], shots: Sequence[Shots], seed: int, draw: int
) -> dict[Shots, NDArray[np.int64]]:
    shuffled = [np.random.default_rng([seed, draw, c]).permutation(m) for c, m in members.items()]
    return {k: np.sort(np.concatenate([m[:k] for m in shuffled])) for k in shots}
