"""Clustering: do the features fall into the classes by themselves?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray

from selfsup.errors import UserError
from selfsup.evaluation.rows import Features, as_matrix


class Clustering(NamedTuple):
    """How clusters and classes agree."""

    nmi: float  # normalized mutual information, 0 to 1; grows with the number of clusters
    ari: float  # adjusted Rand index, 0 for chance, 1 for equal, a little below 0 for worse than chance
    accuracy: float  # of the best one-to-one naming of clusters by classes, 0 to 1
    clusters: NDArray[np.int64]  # (n,) cluster of each sample


def cluster(x: Features, y: NDArray[np.int64], *, clusters: int | None = None, seed: int = 0) -> Clustering:
    """Run k-means on L2-normalized features and compare its clusters with the classes, which it never sees.

    The number of clusters is that of the classes, so even this uses label information. The best of 4 starts counts.

    Args:
        x: features (n, d).
        y: class ids (n,), -1 where there is no label: clustered, not compared.
        clusters: how many; None for as many as there are classes.
        seed: where k-means starts.

    Raises:
        UserError: features that are not finite, no labels, more clusters than samples.
    """
    from sklearn.cluster import KMeans  # slow to import
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    features, known = F.normalize(as_matrix(x)).cpu().numpy(), y >= 0
    if len(y) != len(features) or not known.any():
        raise UserError(f"{len(features)} samples need as many class ids, some of them known")
    count = clusters or len(np.unique(y[known]))
    if count > len(features):
        raise UserError(f"{count} clusters cannot be made of {len(features)} samples")
    found = KMeans(count, n_init=4, random_state=seed).fit_predict(features).astype(np.int64)
    truth, guess = y[known], found[known]
    nmi, ari = normalized_mutual_info_score(truth, guess), adjusted_rand_score(truth, guess)
    return Clustering(float(nmi), float(ari), hungarian_accuracy(truth, guess), found)


def hungarian_accuracy(y: NDArray[np.int64], clusters: NDArray[np.int64]) -> float:
    """Return the accuracy of the best one-to-one naming of clusters by classes (n,), 0 to 1 (Kuhn, 1955)."""
    from scipy.optimize import linear_sum_assignment

    _, row = np.unique(y, return_inverse=True)
    _, column = np.unique(clusters, return_inverse=True)
    together = np.zeros((row.max() + 1, column.max() + 1), np.int64)
    np.add.at(together, (row, column), 1)
    return float(together[linear_sum_assignment(together, maximize=True)].sum() / len(y))
