"""Which samples to label next.

- typical: Hacohen, Dekel & Weinshall, "Active Learning on a Budget: Opposite Strategies Suit High and Low Budgets",
  ICML 2022 (TypiClust): as many clusters as there are labels and suggestions; of each cluster without a label, the
  largest first, the sample whose neighbours are nearest.
- cover: Yehuda, Dekel, Hacohen & Weinshall, "Active Learning Through a Covering Lens", NeurIPS 2022 (ProbCover): the
  sample that has the most others near it which no label covers yet.
- uncertain: of the samples whose propagated label is the least certain, one of each of `n` clusters, weighted by the
  uncertainty (Zhdanov, "Diverse mini-batch Active Learning", 2019).

Deviations:
    Distances are between unit vectors of partly whitened principal components, as in the graph along which labels
    are propagated. Of a cluster of more than 10,000 samples, random ones are compared. ProbCover looks at no more than
    10,000 random samples. Its radius is that with which the median ball holds one part in `labels and suggestions` of
    them: the paper's, with which 95% of the balls lie inside of one k-means cluster, needs the number of classes, and
    with 15 clusters on ten digits it covered three digits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from selfsup.evaluation.propagate import margin
from selfsup.evaluation.rows import blocks

MOST_CLUSTERS = 500
SMALL_CLUSTER = 5  # samples; smaller ones are outliers, and come last
NEIGHBOURS = 20  # that say how typical a sample is
RADIUS_FROM = 1000  # samples whose neighbours give ProbCover its radius
LARGE = 10_000  # random samples of a larger cluster, or for ProbCover of all, that are compared with each other
CANDIDATES = 10  # for each suggestion, the most uncertain ones
MANY = 20_000  # samples from which on k-means sees them in small batches

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]


class Suggestion(NamedTuple):
    """A row, and how many samples it stands for: those of its cluster, or that it covers."""

    row: int
    stands_for: int


def vectors_of(z: Tensor) -> Vectors:
    """Return what is clustered: unit vectors of `whiten` (n, r), which have no components where all are alike."""
    return np.asarray(z.numpy(), np.float32) if z.shape[1] else np.ones((len(z), 1), np.float32)


def typical(
    z: Vectors, known: Rows, n: int, seed: int = 0, probabilities: NDArray[np.float32] | None = None
) -> list[Suggestion]:
    """Return the most typical sample of each of `n` clusters that have no label (TypiClust)."""
    cluster = _clusters(z, min(len(known) + n, MOST_CLUSTERS, len(z)), seed)
    sizes = np.bincount(cluster)
    free = np.ones(len(z), bool)
    free[known] = False
    labels = np.bincount(cluster[known], minlength=len(sizes))
    found: list[Suggestion] = []
    rng = np.random.default_rng(seed)
    while len(found) < n and free.any():  # a second time round only where all clusters have labels
        open_ = np.bincount(cluster[free], minlength=len(sizes)) > 0
        order = np.lexsort((-sizes, labels, sizes < SMALL_CLUSTER))
        best = next(int(number) for number in order if open_[number])
        members = np.flatnonzero(cluster == best)
        size = len(members)
        if size > LARGE:
            others = rng.choice(members[free[members]], min(LARGE, int(free[members].sum())), replace=False)
            members = np.sort(others)
        row = int(members[np.where(free[members], _typicality(z[members]), -np.inf).argmax()])
        found.append(Suggestion(row, size))
        free[row] = False
        labels[best] += 1
    return found


def cover(
    z: Vectors, known: Rows, n: int, seed: int = 0, probabilities: NDArray[np.float32] | None = None
) -> list[Suggestion]:
    """Return the samples that cover the most others which no label covers, one after another (ProbCover)."""
    rng = np.random.default_rng(seed)
    pool = np.arange(len(z))
    if len(z) > LARGE:
        others = np.setdiff1d(pool, known)
        pool = np.sort(np.concatenate([known, rng.choice(others, min(len(others), LARGE), replace=False)]))
    part = z[pool]
    near = [np.empty(0, np.int64)] * len(part)
    size = min(-(-len(part) // (len(known) + n)), len(part) - 1)
    some = part[rng.permutation(len(part))[:RADIUS_FROM]]
    radius = float(np.median(np.partition(1 - some @ part.T, size, axis=1)[:, size]))
    for rows in blocks(len(part), len(part)):
        inside = 1 - part[rows] @ part.T <= radius
        for at in range(len(inside)):
            near[rows.start + at] = np.flatnonzero(inside[at])
    uncovered = np.ones(len(part), bool)
    gain = np.array([len(own) for own in near])
    free = ~np.isin(pool, known)
    found: list[Suggestion] = []

    def cover_from(place: int) -> None:
        for other in near[place][uncovered[near[place]]]:
            gain[near[other]] -= 1
        uncovered[near[place]] = False

    for covered in np.flatnonzero(~free).tolist():
        cover_from(covered)
    ties = rng.random(len(part))
    for _ in range(min(n, int(free.sum()))):
        place = int(np.lexsort((ties, np.where(free, gain, -1)))[-1])
        found.append(Suggestion(int(pool[place]), int(max(gain[place], 1))))
        free[place] = False
        cover_from(place)
    return found


def uncertain(
    z: Vectors, known: Rows, n: int, seed: int = 0, probabilities: NDArray[np.float32] | None = None
) -> list[Suggestion]:
    """Return uncertain samples that differ: of each cluster of the most uncertain ones, the one in its middle."""
    assert probabilities is not None
    doubt = 1 - margin(probabilities)
    doubt[known] = -1
    most = np.argsort(-doubt, kind="stable")[: min(CANDIDATES * n, int((doubt >= 0).sum()))]
    n = min(n, len(most))
    weight = doubt[most].astype(np.float64) + 1e-3
    cluster = _clusters(z[most], n, seed, weight)
    found = []
    for number in np.unique(cluster):
        members = np.flatnonzero(cluster == number)
        centre = (weight[members, None] * z[most[members]]).sum(0)
        found.append(Suggestion(int(most[members[(z[most[members]] @ centre).argmax()]]), len(members)))
    chosen = {item.row for item in found}
    found += [Suggestion(int(row), 1) for row in most if int(row) not in chosen][: n - len(found)]
    return sorted(found, key=lambda item: -doubt[item.row])


STRATEGIES: dict[str, Callable[..., list[Suggestion]]] = {"typical": typical, "cover": cover, "uncertain": uncertain}


def _clusters(z: Vectors, count: int, seed: int, weight: NDArray[np.float64] | None = None) -> Rows:
    """Return the cluster (n,) of each row, by k-means; fewer than `count` where fewer rows differ."""
    import warnings

    from sklearn.cluster import KMeans, MiniBatchKMeans  # slow to import
    from sklearn.exceptions import ConvergenceWarning

    algorithm = MiniBatchKMeans if len(z) > MANY else KMeans
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # copies
        found = algorithm(count, n_init=3, random_state=seed).fit(z, sample_weight=weight).labels_
    return np.asarray(found, np.int64)


def _typicality(z: Vectors) -> NDArray[np.float64]:
    """Return for each row of a cluster the inverse mean distance to its nearest neighbours in it."""
    k = min(NEIGHBOURS, len(z) - 1)
    if k < 1:
        return np.ones(len(z))
    found = np.empty(len(z))
    for rows in blocks(len(z), len(z)):
        squared = np.maximum(2 - 2 * (z[rows] @ z.T), 0)
        nearest = np.partition(squared, k, axis=1)[:, : k + 1]  # with itself, at 0
        found[rows] = 1 / (np.sqrt(nearest).sum(1) / k + 1e-9)
    return found
