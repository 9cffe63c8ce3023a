"""Spherical k-means, for tasks that cluster their own embeddings during training."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_ROOM = 1 << 24  # similarities held at once


@torch.no_grad()
def spherical_kmeans(x: Tensor, clusters: int, seed: int, iterations: int = 10) -> tuple[Tensor, Tensor]:
    """Cluster unit rows (N, d) by cosine -> unit centroids (clusters, d) and assignments (N,) int64.

    The initial centroids are random rows. An empty cluster is restarted at a row of the largest one.
    """
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)).to(x.device)
    centroids = x[order[torch.arange(clusters, device=x.device) % len(x)]]
    label = _nearest(x, centroids)
    for _ in range(iterations):
        sums = torch.zeros_like(centroids).index_add_(0, label, x)
        sizes = torch.bincount(label, minlength=clusters)
        empty = sizes == 0
        largest = order[label[order] == sizes.argmax()]
        sums[empty] = x[largest[torch.arange(int(empty.sum()), device=x.device) % len(largest)]]
        centroids = F.normalize(sums, dim=1)
        label = _nearest(x, centroids)
    return centroids, label


def _nearest(x: Tensor, centroids: Tensor) -> Tensor:
    step = max(1, _ROOM // len(centroids))
    return torch.cat([(x[at : at + step] @ centroids.T).argmax(1) for at in range(0, len(x), step)])
