"""Labels for every sample from a few, each with a confidence that was checked on labels that were held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfsup.errors import UserError
from selfsup.evaluation.probe import stratified_folds
from selfsup.evaluation.propagate import NO_CLASS, spread_labels
from selfsup.source import Labels

FOLDS = 5
UNSURE_BELOW = 0.7  # confidence
PRIOR_SLOPE, PRIOR_SHIFT = 1.0, 3.0  # standard deviations: a few held-out labels must not say too much
STRAY = 0.5  # part of what a class with one label is given where it is the first one; below, its label seems astray
ANCHOR = 3.0  # held-out labels' worth of: where all classes are alike, a guess is right by chance


@dataclass(frozen=True)
class Calibration:
    """From the probability of the most probable class to how often it is right: a logistic curve in its log-odds.

    Of `tested` held-out labels, `right` were predicted; `sure` of them with at least the threshold, of which
    `sure_right` were predicted.
    """

    slope: float
    shift: float
    tested: int = 0
    right: int = 0
    sure: int = 0
    sure_right: int = 0

    def __call__(self, probability: NDArray[Any]) -> NDArray[np.float32]:
        """Return the confidence; 0 where no label reaches."""
        from scipy.special import expit

        found = expit(self.slope * _log_odds(probability) + self.shift)
        return np.where(probability > 0, found, 0).astype(np.float32)


@dataclass(frozen=True)
class Doubt:
    """A given label that the others contradict: the row, its class, the class that they give it, and how surely."""

    row: int
    given: int
    instead: int
    confidence: float


@dataclass(frozen=True)
class Assigned:
    """Labels of n samples. `ids`: -1 for unsure; `guess`: the most probable class, -1 where no label reaches.

    A given label stands, with confidence 1. `probabilities` (n, classes) are those of `spread_labels`. `stray`: classes
    whose only label lies among samples of other classes, as far as one can see.
    """

    probabilities: NDArray[np.float32]
    ids: NDArray[np.int64]
    guess: NDArray[np.int64]
    confidence: NDArray[np.float32]
    unsure_below: float
    calibration: Calibration
    doubts: tuple[Doubt, ...]
    stray: tuple[int, ...]


def assign(
    graph: Any,
    rows: NDArray[np.int64],
    y: NDArray[np.int64],
    classes: int,
    unsure_below: float = UNSURE_BELOW,
) -> Assigned:
    """Spread labels over a graph of `build_graph`, calibrate the confidence, and say where it is unsure.

    Stratified folds of the labels are held out in turn, and a logistic curve (Platt, 1999) is fitted to how often the
    rest predict them. A class with a single label cannot be held out, so its label is looked at as `_stray` says.

    Args:
        graph: (n, n).
        rows: numbers (l,) of the labelled samples, each once.
        y: their class ids (l,).
        classes: how many classes there are.
        unsure_below: the confidence below which a sample has no label.

    Raises:
        UserError: labels of one class only.
    """
    if len(np.unique(y)) < 2:
        raise UserError("all labels are of one class; label at least one sample of another class")
    fold = stratified_folds(y, FOLDS, 0)
    out = np.zeros((len(y), classes), np.float32)
    for number in np.unique(fold[fold >= 0]):
        kept = fold != number
        out[~kept] = spread_labels(graph, rows[kept], y[kept], classes)[rows[~kept]]
    held = np.flatnonzero((fold >= 0) & out.any(1))
    guess, right = out.argmax(1), out.argmax(1) == y
    slope, shift = _fit(_at_home(out[held]), right[held], len(np.unique(y)))
    how_surely = Calibration(slope, shift)(_at_home(out))
    sure = how_surely >= unsure_below
    sure[fold < 0] = False
    counts = (int((fold >= 0).sum()), int(right[held].sum()), int(sure.sum()), int((sure & right).sum()))
    calibration = Calibration(slope, shift, *counts)
    doubts = [
        Doubt(int(rows[i]), int(y[i]), int(guess[i]), float(how_surely[i])) for i in np.flatnonzero(sure & ~right)
    ]
    probabilities = spread_labels(graph, rows, y, classes)
    confidence, best = calibration(_at_home(probabilities)), probabilities.argmax(1)
    best[confidence == 0] = -1
    confidence[rows], best[rows] = 1, y
    ids = np.where(confidence >= unsure_below, best, -1)
    ids[rows] = y
    order = tuple(sorted(doubts, key=lambda doubt: -doubt.confidence))
    single = bool((np.bincount(y) == 1).any())
    stray = _stray(spread_labels(graph, rows, y, classes, again=0), y) if single else ()
    return Assigned(probabilities, ids, best, confidence, unsure_below, calibration, order, stray)


def check_classes(labels: Labels, where: str) -> None:
    """Raise `UserError` for labels that are not one class a sample: numbers to predict, or several labels."""
    used = [labels.classes[number] for number in np.unique(labels.ids[labels.ids >= 0])]
    several = next((name for name in used if "|" in name), None)
    if several is not None:
        raise UserError(
            f"{where} gives a sample several labels ({several!r}), and only one class per sample can be spread: make a "
            "file for each label, with its name or 'other'"
        )
    try:
        numbers = np.array([float(name) for name in used])
    except ValueError:
        return
    fractions = bool((numbers % 1 != 0).any())  # also NaN and infinity
    scattered = len(used) > 10 and np.ptp(numbers) >= 4 * len(used) and 2 * len(used) > (labels.ids >= 0).sum()
    if fractions or scattered:
        raise UserError(
            f"{where} holds numbers ({used[0]} to {used[-1]}), not classes: group them into classes first, such as "
            "small and large"
        )


def _stray(first: NDArray[np.float32], y: NDArray[np.int64]) -> tuple[int, ...]:
    """Return the classes whose only label lies among samples of other classes.

    After the labels spread once, most of the probability that such a class is given is on samples that another class is
    given more of. Where it is so for most of them, the classes are no clusters, and none is told from the others.
    """
    single = np.bincount(y, minlength=first.shape[1]) == 1
    mine = np.bincount(first.argmax(1), weights=first.max(1), minlength=first.shape[1])
    found = np.flatnonzero(single & (mine < STRAY * first.sum(0)))
    return tuple(found.tolist()) if len(found) <= single.sum() / 2 else ()


def _at_home(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the highest probability of each sample, 1 where its class is at home: "no class" has a part there too."""
    return (probabilities.max(1) * (1 + NO_CLASS)).clip(max=1)


def _log_odds(probability: NDArray[Any]) -> NDArray[np.float64]:
    p = probability.astype(np.float64).clip(1e-4, 1 - 1e-4)
    return np.asarray(np.log(p / (1 - p)), np.float64)


def _fit(probability: NDArray[np.float32], right: NDArray[np.bool_], classes: int) -> tuple[float, float]:
    """Return slope and shift of the most probable curve, with their priors and one anchor at chance."""
    from scipy.optimize import minimize
    from scipy.special import log_expit

    at = np.append(_log_odds(probability), _log_odds(np.array([1 / classes])))
    weight_right = np.append(right.astype(np.float64), ANCHOR / classes)
    weight_wrong = np.append(~right, ANCHOR * (1 - 1 / classes)).astype(np.float64)

    def loss(values: NDArray[np.float64]) -> float:
        odds = np.exp(values[0]) * at + values[1]
        likelihood = (weight_right * log_expit(odds) + weight_wrong * log_expit(-odds)).sum()
        return float(-likelihood + (values[0] / PRIOR_SLOPE) ** 2 / 2 + (values[1] / PRIOR_SHIFT) ** 2 / 2)

    log_slope, shift = minimize(loss, np.zeros(2), method="Nelder-Mead").x
    return float(np.exp(log_slope)), float(shift)
