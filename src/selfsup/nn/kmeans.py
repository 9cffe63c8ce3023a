"""K-means, for tasks that cluster their own samples or embeddings during training."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_ROOM = 1 << 24  # similarities held at once


@torch.no_grad()
def spherical_kmeans(x: Tensor, clusters: int, seed: int) -> tuple[Tensor, Tensor]:
    """Cluster unit rows (N, d) by cosine -> unit centroids (clusters, d) and assignments (N,) int64.

    The initial centroids are random rows. An empty cluster is restarted at a row of the largest one.
    """
    return _kmeans(x, clusters, seed, 10, spherical=True)


@torch.no_grad()
def kmeans(x: Tensor, clusters: int, seed: int) -> tuple[Tensor, Tensor]:
    """Cluster rows (N, d) by Euclidean distance -> centroids (clusters, d) and assignments (N,) int64; as above."""
    return _kmeans(x, clusters, seed, 30, spherical=False)


def nearest(x: Tensor, centroids: Tensor, spherical: bool = False) -> Tensor:
    """Return the number of the nearest centroid (K, d) of each row (N, d): (N,) int64."""
    step = max(1, _ROOM // len(centroids))
    half = 0.0 if spherical else centroids.square().sum(1) / 2  # x · c - |c|² / 2 is largest where |x - c| is smallest
    return torch.cat([(x[at : at + step] @ centroids.T - half).argmax(1) for at in range(0, len(x), step)])


def _kmeans(x: Tensor, clusters: int, seed: int, iterations: int, spherical: bool) -> tuple[Tensor, Tensor]:
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)).to(x.device)
    centroids = x[order[torch.arange(clusters, device=x.device) % len(x)]]
    label = nearest(x, centroids, spherical)
    for _ in range(iterations):
        sums = torch.zeros_like(centroids).index_add_(0, label, x)
        sizes = torch.bincount(label, minlength=clusters)
        empty = sizes == 0
        largest = order[label[order] == sizes.argmax()]
        sums[empty] = x[largest[torch.arange(int(empty.sum()), device=x.device) % len(largest)]]
        centroids = F.normalize(sums, dim=1) if spherical else sums / sizes.clamp_min(1)[:, None]
        label = nearest(x, centroids, spherical)
    return centroids, label
