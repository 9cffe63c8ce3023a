"""DenseCL (Wang et al., 2021): find the key of the other view and, for each place, that of the place most alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.base.distributed import gather
from selfsup.losses import product, unit
from selfsup.nn.ema import ema_update, frozen_copy
from selfsup.nn.heads import accuracy
from selfsup.nn.image.dense import patch_features, patch_shape
from selfsup.nn.image.pairs import view_panels
from selfsup.nn.norm import in_shuffled_parts
from selfsup.nn.queue import Queue
from selfsup.source import Source
from selfsup.spec import Spec
from selfsup.task import Batch, Encoder, Loss, Panel, Task, Views, at_most_samples
from selfsup.views import preset_views


class DenseCLR(Task):
    """Find the key of an image's other view, and of each of its places, among past keys (Wang et al., 2021, section 3).

    The loss is (1 - λ) times that of MoCo v2, of the mean of an image's patch features, plus λ times the same for each
    of S × S places. The positive of a place is the place of the other view whose patch features, before any projection,
    are most alike by cosine; its negatives are past keys of whole views, means over their places. As in
    `moco`, keys are of an EMA of encoder and projectors, computed in parts with BatchNorm statistics of their own, and
    past keys of the same image are no negatives. Chance is ln(`queue_size` + 1).

    Batch: `x` (B, 2, C, H, W) float; `index`, `noise` (B,) int64.
    Published: ImageNet, ResNet-50, 200 epochs: VOC detection 58.7 AP, segmentation 69.4 mIoU (MoCo v2: 57.0, 67.5).

    Deviations: a shorter queue and a lower momentum for small data. Whole views are embedded by the mean of the patch
    features, so that it is not the class token or the quadrants of `convnet` that the loss trains, but what they read.

    Args:
        dense_weight: Weight λ of the loss of places, in [0, 1].
        grid: Places a side, S, to which larger maps are averaged, in [1, inf).
        queue_size: Keys of past batches, at most the number of samples; 65,536 in the paper, in [1, inf).
        momentum: Momentum of the momentum encoder; 0.999 in the paper, in [0, 1].
        temperature: Divides the cosine similarities, in (0, inf).
        hidden_dim: Width of the hidden layer of both projectors; 2,048 in the paper, in [1, inf).
        out_dim: Dimension of the embeddings that the loss compares, in [1, inf).
        num_splits: Parts of the batch with BatchNorm statistics of their own, in [1, inf).
        min_scale: Smallest area of a crop as a fraction of the image, in (0, 1].
    """

    paper = "Wang et al., 2021"
    section = "images: contrastive"

    def __init__(
        self,
        encoder: Encoder,
        *,
        dense_weight: float = 0.5,
        grid: int = 7,
        queue_size: int = 4096,
        momentum: float = 0.99,
        temperature: float = 0.2,
        hidden_dim: int = 512,
        out_dim: int = 128,
        num_splits: int = 4,
        min_scale: float = 0.2,
    ) -> None:
        super().__init__(encoder)
        dim, height, width = patch_shape(encoder)
        self.dense_weight, self.sides = dense_weight, (min(grid, height), min(grid, width))
        self.momentum, self.temperature, self.num_splits, self.min_scale = momentum, temperature, num_splits, min_scale
        self.projectors = nn.ModuleList(  # of views, and of places
            nn.Sequential(nn.Linear(dim, hidden_dim), nn.ReLU(inplace=True), nn.Linear(hidden_dim, out_dim))
            for _ in range(2)
        )
        self.momentum_encoder, self.momentum_projectors = frozen_copy(self.encoder), frozen_copy(self.projectors)
        self.queue, self.dense_queue = Queue(queue_size, out_dim), Queue(queue_size, out_dim)
        self.seen: tuple[Tensor, Tensor, Tensor] | None = None  # images and both keys of their views, for `after_step`

    @classmethod
    def resolve(cls, source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
        """Limit the queue to the number of samples."""
        return at_most_samples(source, given, cls, "queue_size")

    def views(self, spec: Spec) -> Views:
        """Return two views with the augmentations of MoCo v2."""
        return preset_views(spec, "mocov2", self.min_scale, noise=True)

    def places(self, encoder: Encoder, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, S², D): patch features."""
        return F.adaptive_avg_pool2d(patch_features(encoder, x), self.sides).flatten(2).transpose(1, 2)

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_dim), of unit length."""
        return unit(self.projectors[0](self.places(self.encoder, x).mean(1)))

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropies of the positive keys of views and of places against the queues."""
        index, seen = batch["index"], self.places(self.encoder, batch["x"][:, 0])
        with torch.no_grad():
            order = batch["noise"].argsort()
            others = in_shuffled_parts(
                lambda part: self.places(self.momentum_encoder, part), batch["x"][:, 1], order, self.num_splits
            )
            key, dense_key = unit(self.momentum_projectors[0](others.mean(1))), self.momentum_projectors[1](others)
            alike = product(unit(seen), unit(others).transpose(1, 2)).argmax(2, keepdim=True)  # (B, S², 1)
            positive = unit(dense_key).gather(1, alike.expand_as(dense_key))
            self.seen = index, key, unit(dense_key.mean(1))
        query, dense_query = unit(self.projectors[0](seen.mean(1))), unit(self.projectors[1](seen))
        logits = self.queue.contrasted(query, key, index) / self.temperature
        dense = self.dense_queue.contrasted(dense_query, positive, index).flatten(0, 1) / self.temperature
        first = torch.zeros(len(dense), dtype=torch.long, device=dense.device)
        of_views, of_places = F.cross_entropy(logits, first[: len(logits)]), F.cross_entropy(dense, first)
        metrics = {"accuracy": accuracy(logits, first[: len(logits)]), "dense_accuracy": accuracy(dense, first)}
        value = (1 - self.dense_weight) * of_views + self.dense_weight * of_places
        return Loss(value, metrics, math.log(len(self.queue.rows) + 1))

    def after_step(self) -> None:
        """Update the momentum encoder and projectors, and put the keys of the global batch into the queues."""
        ema_update(self.momentum_encoder, self.encoder, self.momentum)
        ema_update(self.momentum_projectors, self.projectors, self.momentum)
        if self.seen is not None:
            index, keys, dense_keys = (gather(part) for part in self.seen)
            self.queue.put(keys, index)
            self.dense_queue.put(dense_keys, index)
            self.seen = None

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the query and the key view of each image."""
        return view_panels(batch["x"], embed=self.embed if guess else None)
