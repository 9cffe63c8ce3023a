"""Further metrics of frozen features, beside accuracy: retrieval, clustering, and metrics that need no labels."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from selfsup.errors import UserError
from selfsup.evaluation.clustering import cluster
from selfsup.evaluation.label_free import alignment, alpha_req, effective_dimension, lidar, rankme, uniformity
from selfsup.evaluation.retrieval import retrieval
from selfsup.source import Source
from selfsup.spec import Spec, has_views
from selfsup.task import Task, Views
from selfsup.views import standard_views

SAMPLES = 1000  # of which several views are made
VIEWS = 4


class Measured(NamedTuple):
    """Features (m, d) of the test samples, and their class ids (m,) where they have classes."""

    x: NDArray[np.float32]
    ids: NDArray[np.int64] | None
    views: NDArray[np.float32]  # (m', views, d): several views of some of the samples; empty where no metric needs them
    seed: int


class ExtraMetrics(NamedTuple):
    """Several metrics that are computed together, by name."""

    measure: Callable[[Measured], dict[str, float]]
    needs_classes: bool = False
    needs_views: bool = False


def _retrieval(test: Measured) -> dict[str, float]:
    assert test.ids is not None
    found = retrieval(test.x, test.ids)
    return {f"R@{k}": value for k, value in found.recall.items()} | {"mAP": found.mean_ap}


def _clustering(test: Measured) -> dict[str, float]:
    assert test.ids is not None
    found = cluster(test.x, test.ids, seed=test.seed)
    return {"NMI": found.nmi, "ARI": found.ari, "cluster accuracy": found.accuracy}


def _label_free(test: Measured) -> dict[str, float]:
    return {
        "RankMe": rankme(test.x),
        "LiDAR": lidar(torch.from_numpy(test.views)),
        "α-ReQ": alpha_req(test.x),
        "alignment": alignment(test.views[:, 0], test.views[:, 1]),
        "uniformity": uniformity(test.x),
        "effective dimension": effective_dimension(test.x),
    }


EXTRA_METRICS = {
    "retrieval": ExtraMetrics(_retrieval, needs_classes=True),
    "clustering": ExtraMetrics(_clustering, needs_classes=True),
    "label-free": ExtraMetrics(_label_free, needs_views=True),
}


def measure_features(wanted: Sequence[str], test: Measured) -> dict[str, float]:
    """Return the metrics of these groups of `EXTRA_METRICS`, but for those that need classes where there are none."""
    found: dict[str, float] = {}
    for name in wanted:
        if test.ids is not None or not EXTRA_METRICS[name].needs_classes:
            found |= EXTRA_METRICS[name].measure(test)
    return found


def task_views(task: Task | None, source: Source, spec: Spec) -> tuple[Views, str]:
    """Return the views that LiDAR and alignment compare, and what they are.

    The task's own where it makes a key `x` of these samples; not, for example, of texts that it cuts into pieces first.
    """
    if task is not None:
        views = task.views(spec)
        with contextlib.suppress(UserError):
            if "x" in views.fetch(source, np.arange(1), 0, 0).batch:
                return views, "the views of pretraining"
    return standard_views(spec).several(spec)


@torch.no_grad()
def view_features(
    encoder: nn.Module, source: Source, spec: Spec, views: Views, device: torch.device, seed: int
) -> NDArray[np.float32]:
    """Return the features (n, 4, d) of four views each of up to 1,000 samples, drawn as four epochs would draw them."""
    encoder = encoder.to(device).eval()
    numbers = np.random.default_rng(seed).permutation(len(source))[:SAMPLES]
    found = []
    for epoch in range(VIEWS):
        done = []
        for chosen in np.array_split(numbers, -(-len(numbers) // 128)):
            batch = views.fetch(source, chosen, seed, epoch).batch
            x = views.finish({key: value.to(device) for key, value in batch.items()})["x"]
            done.append(encoder(x[:, 0] if has_views(x, spec) else x).float().cpu().numpy())
        found.append(np.concatenate(done))
    return np.stack(found, 1)
