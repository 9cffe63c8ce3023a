"""More readings of a frozen representation than its accuracy: retrieval, clustering, and what needs no labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from selfsup.evaluation.clustering import cluster
from selfsup.evaluation.label_free import alignment, alpha_req, effective_dimension, lidar, rankme, uniformity
from selfsup.evaluation.retrieval import retrieval
from selfsup.source import Source
from selfsup.spec import Spec, has_views
from selfsup.task import Views
from selfsup.views import standard_views
from selfsup.views.image import ImageViews

READINGS = ("retrieval", "clustering", "label-free")
SAMPLES = 1000  # of which several views are made
VIEWS = 4


def take_readings(
    wanted: tuple[str, ...],
    features: NDArray[np.float32],
    ids: NDArray[np.int64] | None,
    views: NDArray[np.float32] | None,
    seed: int,
) -> dict[str, float]:
    """Return the readings by name.

    Args:
        wanted: some of `READINGS`; those that compare with classes are left out where there are no `ids`.
        features: of the test samples (n, d).
        ids: their classes (n,).
        views: features (n', views, d) of several views of some test samples, for what needs no labels.
        seed: where k-means starts.
    """
    found: dict[str, float] = {}
    if "retrieval" in wanted and ids is not None:
        near = retrieval(features, ids)
        found |= {f"R@{k}": value for k, value in near.recall.items()} | {"mAP": near.mean_ap}
    if "clustering" in wanted and ids is not None:
        groups = cluster(features, ids, seed=seed)
        found |= {"NMI": groups.nmi, "ARI": groups.ari, "cluster accuracy": groups.accuracy}
    if "label-free" in wanted and views is not None:
        found |= {
            "RankMe": rankme(features),
            "LiDAR": lidar(torch.from_numpy(views)),
            "α-ReQ": alpha_req(features),
            "alignment": alignment(views[:, 0], views[:, 1]),
            "uniformity": uniformity(features),
            "effective dimension": effective_dimension(features),
        }
    return found


def task_views(task: Any, spec: Any) -> tuple[Views, str]:
    """Return the views that LiDAR and alignment compare, and what they are: the task's own where it has a key `x`."""
    views = task.views(spec) if task is not None else None
    if isinstance(views, ImageViews) and "x" in views.groups:
        return views, "the views of pretraining"
    return standard_views(spec).several(spec)


@torch.no_grad()
def view_features(
    encoder: nn.Module, source: Source, spec: Spec, views: Views, device: torch.device, seed: int
) -> NDArray[np.float32]:
    """Return the features (n, 4, d) of four views each of up to 1,000 samples, drawn as four epochs would draw them."""
    encoder = encoder.to(device).eval()
    numbers = np.random.default_rng(seed).permutation(len(source))[:SAMPLES]
    rows = []
    for epoch in range(VIEWS):
        done = []
        for chosen in np.array_split(numbers, -(-len(numbers) // 128)):
            batch = views.fetch(source, chosen, seed, epoch).batch
            x = views.finish({key: value.to(device) for key, value in batch.items()})["x"]
            done.append(encoder(x[:, 0] if has_views(x, spec) else x).float().cpu().numpy())
        rows.append(np.concatenate(done))
    return np.stack(rows, 1)
