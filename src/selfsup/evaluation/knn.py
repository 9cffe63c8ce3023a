"""Nearest neighbours by cosine similarity: the search, and the classifier that needs no training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfsup.errors import UserError
from selfsup.evaluation.drawn import Drawn, Poolings
from selfsup.evaluation.rows import Features, Ids, as_ids, as_matrix
from selfsup.neighbours.exact import nearest_in_blocks

KS = (1, 3, 5, 10, 20, 50, 100, 200)
TEMPERATURE = 0.07  # of the votes, as in Wu et al. (2018)
QUERIES = 5000  # samples that tell the accuracy of each k to about half a point
GALLERY = 2**17  # rows at a time, at most


def neighbours(queries: Features, gallery: Features, k: int, *, block: int = 512) -> tuple[Tensor, Tensor]:
    """Find the k most similar gallery rows of each query, by cosine.

    Exact: blocked matrix products on the gallery's device; at most block · 131,072 similarities and a normalized copy
    of 131,072 rows are in memory. A row of zeros has the similarity 0 to everything.

    Args:
        queries: (m, d).
        gallery: (n, d).
        k: 1 <= k <= n.
        block: queries at a time.

    Returns:
        Indices (m, k) int64 and similarities (m, k) float32 in [-1, 1], most similar first.

    Raises:
        UserError: features that are not finite, dimensions that differ, k out of range.
    """
    g, q = as_matrix(gallery, "the gallery"), as_matrix(queries, "the queries")
    if q.shape[1] != g.shape[1]:
        raise UserError(
            f"queries have {q.shape[1]} dimensions, the gallery {g.shape[1]}; were they made by one encoder?"
        )
    if not 1 <= k <= len(g):
        raise UserError(f"k must be 1 to {len(g)}, the size of the gallery, not {k}")
    size = -(-len(g) // -(-len(g) // GALLERY))  # equal parts
    parts = ((start, g[start : start + size]) for start in range(0, len(g), size))
    return nearest_in_blocks(q, parts, k, rows=block)


def fit_knn(x: Features, y: Ids, classes: int, ks: Sequence[int] = KS, *, seed: int = 0) -> KNN:
    """Make a kNN classifier (Wu et al., 2018): each of k neighbours votes for its class with exp(cosine / 0.07).

    k is the smallest candidate with the best leave-one-out accuracy on these samples (on 5,000 of them, drawn by
    `seed`, where there are more); candidates above n - 1 are left out. With one sample per class nothing can be left
    out, and k is the smallest candidate.

    Args:
        x: features (n, d), array or tensor; the work is done on its device.
        y: class ids (n,), 0 <= y < classes. A class without samples is never predicted.
        classes: how many classes there are.
        ks: the candidates.
        seed: draws those samples.

    Raises:
        UserError: features that are not finite or not (n, d), ids out of range.
    """
    features = as_matrix(x)
    ids = as_ids(y, len(features), classes, features.device)
    known = sorted(k for k in ks if k < len(features)) or [1]
    if len(known) == 1 or torch.bincount(ids).max() == 1:
        return KNN(features, ids, classes, known[0])
    drawn = np.random.default_rng(seed).permutation(len(features))[:QUERIES]
    chosen = torch.from_numpy(drawn).to(features.device)
    index, similarity = neighbours(features[chosen], features, known[-1] + 1)
    # A duplicate may stand before the sample itself, so that it is found by its number and moved to the end.
    order = (index == chosen[:, None]).int().sort(stable=True).indices
    index, similarity = index.gather(1, order), similarity.gather(1, order)
    right = [(_vote(ids[index[:, :k]], similarity[:, :k], classes) == ids[chosen]).sum().item() for k in known]
    return KNN(features, ids, classes, known[int(np.argmax(right))])


def _vote(ids: Tensor, similarities: Tensor, classes: int) -> Tensor:
    """Return the class (m,) with the most votes among neighbours (m, k)."""
    return _votes(ids, similarities, classes).argmax(1)


def _votes(ids: Tensor, similarities: Tensor, classes: int) -> Tensor:
    votes = ((similarities - 1) / TEMPERATURE).exp()
    return votes.new_zeros(len(ids), classes).scatter_add_(1, ids, votes)


@dataclass(frozen=True)
class KNN:
    """A nearest-neighbour classifier; see `fit_knn`."""

    features: Tensor  # (n, d)
    ids: Tensor  # (n,)
    classes: int
    k: int

    def votes(self, x: Features) -> NDArray[np.float32]:
        """Return the votes (m, classes) of the neighbours, as fractions of all."""
        index, similarity = neighbours(x, self.features, self.k)
        rows = range(0, len(index), 4096)
        done = [_votes(self.ids[index[i : i + 4096]], similarity[i : i + 4096], self.classes) for i in rows]
        found = torch.cat(done)
        return (found / found.sum(1, keepdim=True)).cpu().numpy()

    def predict(self, x: Features) -> NDArray[np.int64]:
        """Return class ids (m,)."""
        return self.votes(x).argmax(1)


def read_knn(drawn: Drawn, test: Poolings) -> NDArray[np.int64]:
    """Return class ids (`selfsup.evaluation.evaluators.Evaluator`)."""
    assert drawn.num_classes is not None
    return fit_knn(drawn.features(), drawn.y, drawn.num_classes).predict(test["own"])
