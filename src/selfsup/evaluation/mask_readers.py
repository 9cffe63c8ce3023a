"""Readers of patches: from features of patches of labelled images to the probability of each class, anywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from selfsup.evaluation.knn import fit_knn
from selfsup.evaluation.metrics import mean_iou
from selfsup.evaluation.probe import fit_probe

FOLDS = 3  # of labelled images, by which readers are chosen
ABOUT = {
    "linear": "multinomial logistic regression on standardised patch features; penalty by the mIoU of labelled images "
    "that are held out (0.1 for one image)",
    "knn": "patches by their cosine, weighted votes; k by the mIoU of labelled images that are held out (1 for one "
    "image)",
}

Reader = Callable[[NDArray[np.float32]], NDArray[np.float32]]  # (m, d) -> (m, classes): probabilities


def _linear(x: NDArray[np.float32], y: NDArray[np.int64], classes: int, penalty: float) -> Reader:
    probe = fit_probe(x, y, classes, penalties=[penalty])
    return lambda patches: softmax(probe.scores(patches), 1)


def _knn(x: NDArray[np.float32], y: NDArray[np.int64], classes: int, k: float) -> Reader:
    return fit_knn(x, y, classes, [int(k)]).votes


class _Recipe(NamedTuple):
    """How a reader is fitted, and the values of its one choice: the first where nothing can be held out."""

    fit: Callable[[NDArray[np.float32], NDArray[np.int64], int, float], Reader]
    values: tuple[float, ...]


READERS = {"linear": _Recipe(_linear, (0.1, 1.0, 0.01, 0.001)), "knn": _Recipe(_knn, (1, 3, 10, 30))}


def fit_reader(
    protocol: str, x: NDArray[np.float32], y: NDArray[np.int64], images: NDArray[np.int64], classes: int
) -> tuple[Reader, float]:
    """Return a reader of patches (m, d) of classes (m,), and the value that was chosen for it.

    It is the one with the best mIoU of patches whose images (m,), a third of them at a time, are held out. Neighbouring
    patches of one image are alike: they would choose too little regularization. Cross-entropy, of which most is that of
    the background, would choose too much.
    """
    recipe, folds = READERS[protocol], images % FOLDS

    def fit(rows: NDArray[np.bool_], value: float) -> Reader:
        if len(present := np.unique(y[rows])) > 1:
            return recipe.fit(x[rows], y[rows], classes, value)
        return lambda patches: np.tile(np.eye(classes, dtype=np.float32)[present[0]], (len(patches), 1))

    chosen, best = recipe.values[0], -1.0
    for value in recipe.values if folds.any() and len(np.unique(y)) > 1 else ():
        guess = np.zeros_like(y)
        for fold in np.unique(folds):
            guess[folds == fold] = fit(folds != fold, value)(x[folds == fold]).argmax(1)
        if (found := mean_iou(y, guess)) > best:
            chosen, best = value, found
    return fit(np.ones(len(y), bool), chosen), chosen
