"""Metrics of predictions: they need only the truth and the predictions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from selfsup.errors import UserError


def accuracy(truth: NDArray[np.int64], predicted: NDArray[np.int64]) -> float:
    """Return the fraction of samples (n,) whose class is right, 0 to 1."""
    _same_length(truth, predicted)
    return float(np.mean(truth == predicted))


def balanced_accuracy(truth: NDArray[np.int64], predicted: NDArray[np.int64]) -> float:
    """Return the mean recall of the classes that occur in `truth`, 0 to 1: rare classes count as much as common."""
    hits, actual, _ = _counts(truth, predicted)
    there = actual > 0
    return float(np.mean(hits[there] / actual[there]))


def macro_f1(truth: NDArray[np.int64], predicted: NDArray[np.int64]) -> float:
    """Return the mean F1 score, 0 to 1, of the classes that occur in `truth` or `predicted`."""
    hits, actual, guessed = _counts(truth, predicted)
    there = actual + guessed > 0
    return float(np.mean(2 * hits[there] / (actual + guessed)[there]))


def weighted_f1(truth: NDArray[np.int64], predicted: NDArray[np.int64]) -> float:
    """Return the mean F1 score, 0 to 1, of the classes, each counted as often as it occurs in `truth`."""
    hits, actual, guessed = _counts(truth, predicted)
    return float((actual * 2 * hits / np.maximum(actual + guessed, 1)).sum() / actual.sum())


def r2(truth: NDArray[np.float64], predicted: NDArray[np.float64]) -> float:
    """Return the fraction of the variance that is explained, at most 1; 0 for predicting the mean, negative for worse.

    Args:
        truth: values (n,) or (n, targets); the result is the mean over targets.
        predicted: the same shape.

    Raises:
        UserError: a target whose values are all the same.
    """
    _same_length(truth, predicted)
    total = ((truth - truth.mean(0)) ** 2).sum(0)
    if np.any(total == 0):
        raise UserError("all values of a numeric label are the same; R² is undefined")
    return float(np.mean(1 - ((truth - predicted) ** 2).sum(0) / total))


def average_precision(truth: NDArray[np.int64], scores: NDArray[np.float32]) -> float:
    """Return the mean over labels of the area under the precision-recall curve (scikit-learn's), 0 to 1.

    Chance is the mean frequency of the labels, not 0.5.

    Args:
        truth: (n, labels), 1 where a sample has the label. A label that no sample has is left out.
        scores: (n, labels), larger where the label is likelier.

    Raises:
        UserError: no sample has any label.
    """
    from sklearn.metrics import average_precision_score  # slow to import

    _same_length(truth, scores)
    there = np.flatnonzero(truth.any(0))
    if len(there) == 0:
        raise UserError("no sample has any of the labels")
    return float(np.mean([average_precision_score(truth[:, i], scores[:, i]) for i in there]))


def mean_iou(truth: NDArray[np.int64], predicted: NDArray[np.int64]) -> float:
    """Return the mean over the classes that occur in `truth` of intersection over union, 0 to 1."""
    _same_length(truth, predicted)
    return float(np.nanmean(iou(confusion(truth, predicted, int(max(truth.max(), predicted.max())) + 1))))


def confusion(truth: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Return how many samples of each true class are predicted as each class: (classes, classes)."""
    counts = np.bincount((truth * classes + predicted).ravel(), minlength=classes**2)
    return counts.reshape(classes, classes).astype(np.int64)


def iou(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the intersection over union (classes,) of each class from its `confusion`; nan where it does not occur."""
    hits, truth, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
    found: NDArray[np.float64] = np.where(truth > 0, hits / np.maximum(truth + predicted - hits, 1), np.nan)
    return found


def _counts(truth: NDArray[np.int64], predicted: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """Return for each class how many samples were predicted rightly, have it, and were predicted to have it."""
    _same_length(truth, predicted)
    classes = int(max(truth.max(), predicted.max())) + 1
    samples = (truth[truth == predicted], truth, predicted)
    return tuple(np.bincount(s, minlength=classes).astype(np.int64) for s in samples)


def _same_length(truth: NDArray[np.generic], predicted: NDArray[np.generic]) -> None:
    if truth.shape != predicted.shape or len(truth) == 0:
        raise UserError(f"cannot compare {predicted.shape} predictions with {truth.shape} labels")
