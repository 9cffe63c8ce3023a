"""A subset of a very large pool with the same number from every cluster, as far as each has so many.

Vo et al., "Automatic Data Curation for Self-Supervised Learning: A Clustering-Based Approach", 2024: k-means puts most
of its centroids where most of the data are. So it is run again on the rows nearest to each centroid (their resampling),
which spreads the centroids over what there is; the centroids are clustered likewise, and the subset is divided evenly
among these groups, then among the clusters of each. Deviations: two levels; k-means by cosine, on a sample of the pool;
rows of a cluster are drawn at random.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from selfsup.data.vectors import Vectors
from selfsup.neighbours.index import draw, unit_rows
from selfsup.nn.kmeans import nearest, spherical_kmeans
from selfsup.views.random import uniform

PER_CLUSTER = 40  # rows of the sample
ROUNDS, KEPT = 3, 10  # of resampling, and the nearest rows of each cluster that are kept for it
BLOCK = 1 << 20  # rows whose clusters are looked at again at a time


@dataclass(frozen=True)
class Chosen:
    """The rows of a subset, ascending, and the sizes of the clusters before and after."""

    rows: NDArray[np.int64]
    before: NDArray[np.int64]
    after: NDArray[np.int64]


def balanced(
    vectors: Vectors, left_out: NDArray[np.int64], n: int, clusters: int, seed: int, folder: Path,
    done: Callable[[int], None],
) -> Chosen:  # fmt: skip
    """Return n rows, those `left_out` (ascending) never.

    Which cluster a row is in is noted in a file in `folder` meanwhile, 4 bytes each; in memory are a sample of the
    vectors for k-means, a block and the rows that are chosen. `done` is called with the number of rows of each block.
    """
    centroids, group = _centroids(vectors, left_out, clusters, seed)
    counts = np.zeros(clusters, np.int64)
    with tempfile.TemporaryFile(dir=folder) as file:
        for start, x in vectors.vectors():
            label = nearest(torch.from_numpy(unit_rows(x)), centroids, spherical=True).numpy().astype(np.int32)
            low, high = np.searchsorted(left_out, (start, start + len(x)))
            label[left_out[low:high] - start] = -1
            counts += np.bincount(label[label >= 0], minlength=clusters)
            label.tofile(file)
            done(len(x))
        file.flush()
        quotas = divide(counts, group, n)
        rows = _drawn(np.memmap(file, np.int32, "r"), counts, quotas, seed)
    return Chosen(rows, counts, quotas)


def divide(sizes: NDArray[np.int64], group: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Return how many of `total` rows each cluster (k,) gives: evenly among the groups, then among their clusters."""
    in_group = np.bincount(group, weights=sizes).astype(np.int64)
    quotas = np.zeros_like(sizes)
    for number, quota in enumerate(evenly(in_group, total)):
        quotas[group == number] = evenly(sizes[group == number], int(quota))
    return quotas


def evenly(sizes: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Return numbers (k,) of the sum `total` that are equal, but for those that reach their size and a rest of one."""
    low, high = 0, int(sizes.max(initial=0))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if np.minimum(sizes, middle).sum() <= total else (low, middle - 1)
    quotas = np.minimum(sizes, low)
    quotas[np.flatnonzero(sizes > low)[: total - quotas.sum()]] += 1
    return quotas


def _centroids(
    vectors: Vectors, left_out: NDArray[np.int64], clusters: int, seed: int
) -> tuple[Tensor, NDArray[np.int64]]:
    """Return centroids (k, d) and the group (k,) of each."""
    before = left_out - np.arange(len(left_out))  # rows that are left before each of the others
    drawn = draw(len(vectors) - len(left_out), PER_CLUSTER * clusters, np.random.default_rng(seed))
    x = torch.from_numpy(unit_rows(vectors.take(drawn + np.searchsorted(before, drawn, side="right"))))
    centroids = _resampled(x, clusters, seed)
    groups = max(1, round(clusters**0.5))
    return centroids, nearest(centroids, _resampled(centroids, groups, seed), spherical=True).numpy()


def _resampled(x: Tensor, clusters: int, seed: int) -> Tensor:
    centroids, label = spherical_kmeans(x, clusters, seed)
    for again in range(1, ROUNDS + 1):
        near = (x * centroids[label]).sum(1)
        order = np.lexsort((-near.numpy(), label.numpy()))
        ends = np.cumsum(np.bincount(label.numpy(), minlength=clusters))
        place = np.arange(len(x)) - np.concatenate([[0], ends])[label.numpy()[order]]
        centroids, _ = spherical_kmeans(x[torch.from_numpy(order[place < KEPT])], clusters, seed + again)
        label = nearest(x, centroids, spherical=True)
    return F.normalize(centroids)


def _drawn(
    labels: NDArray[np.int32], counts: NDArray[np.int64], quotas: NDArray[np.int64], seed: int
) -> NDArray[np.int64]:
    """Return the rows, ascending: of each cluster as many as its quota, those with the smallest random numbers."""
    room = 6.0  # standard deviations of the number of rows below a limit
    while True:
        limit = (quotas + room * np.sqrt(quotas) + room) / np.maximum(counts, 1)
        parts = []
        for start in range(0, len(labels), BLOCK):
            label = np.array(labels[start : start + BLOCK], np.int64)
            rows = np.arange(start, start + len(label))
            u = uniform(seed, 0, rows, 1)[:, 0]
            few = (label >= 0) & (u < limit[label]) & (quotas[label] > 0)
            parts.append((rows[few], label[few], u[few]))
        rows, label, u = (np.concatenate(part) for part in zip(*parts, strict=True))
        found = np.bincount(label, minlength=len(counts))
        if (found >= quotas).all():
            break
        room *= 2
    order = np.lexsort((u, label))
    place = np.arange(len(order)) - (np.cumsum(found) - found)[label[order]]
    return np.sort(rows[order[place < quotas[label[order]]]])
