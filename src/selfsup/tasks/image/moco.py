"""MoCo (He et al., 2020; v2: Chen et al., 2020): find the key of the other view in a queue of past keys."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.base.distributed import gather
from selfsup.losses import unit
from selfsup.nn.ema import ema_update, frozen_copy
from selfsup.nn.heads import accuracy
from selfsup.nn.image.pairs import view_panels
from selfsup.nn.norm import in_shuffled_parts
from selfsup.nn.queue import Queue
from selfsup.source import Source
from selfsup.spec import Spec
from selfsup.task import Batch, Encoder, Loss, Panel, Task, Views, at_most_samples
from selfsup.views import preset_views


class MoCo(Task):
    """Find the key of an image's other view among a queue of keys of past batches (He et al., 2020, algorithm 1).

    The defaults are those of v2 (Chen et al., 2020): a projector with one hidden layer, blur, temperature 0.2;
    `hidden_dim=0` and `temperature=0.07` give v1. Keys enter the queue after the loss, or each positive would also be a
    negative. For the same reason a query does not see past keys of its own image, which in small data are often in the
    queue: half of the time if it is as long as the data. Chance is ln(`queue_size` + 1).

    The momentum encoder computes the keys on random parts of the batch, each with its own BatchNorm statistics: if a
    query shared its statistics with its key, they would give the key away (section 3.3, "shuffling BN").

    Batch: `x` (B, 2, C, H, W) float; `index`, `noise` (B,) int64.
    Published: ImageNet, ResNet-50, linear: v1, 200 epochs, 60.8%; v2, 200 epochs, 67.5%, 800 epochs, 71.1%. CIFAR-10,
    ResNet-18, 1,000 epochs: v2+ 92.9%.

    Deviations: a shorter queue and a lower momentum for small data. Each process shuffles its own part of the batch.

    Args:
        queue_size: Keys of past batches, at most the number of samples; 65,536 in the paper, in [1, inf).
        momentum: Momentum of the momentum encoder; 0.999 in the paper, in [0, 1].
        temperature: Divides the cosine similarities; 0.07 in v1, in (0, inf).
        hidden_dim: Width of the hidden layer of the projector; 0: a linear projector, as in v1, in [0, inf).
        out_dim: Dimension of the embedding that the loss compares, in [1, inf).
        num_splits: Parts of the batch with BatchNorm statistics of their own, in [1, inf).
        min_scale: Smallest area of a crop as a fraction of the image, in (0, 1].
    """

    paper = "He et al., 2020"
    section = "images: contrastive"
    also = ("audio",)
    any_size = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        queue_size: int = 4096,
        momentum: float = 0.99,
        temperature: float = 0.2,
        hidden_dim: int = 512,
        out_dim: int = 128,
        num_splits: int = 4,
        min_scale: float = 0.2,
    ) -> None:
        super().__init__(encoder)
        self.momentum, self.temperature, self.num_splits, self.min_scale = momentum, temperature, num_splits, min_scale
        hidden = [nn.Linear(encoder.dim, hidden_dim), nn.ReLU(inplace=True)] if hidden_dim else []
        self.projector = nn.Sequential(*hidden, nn.Linear(hidden_dim or encoder.dim, out_dim))
        self.momentum_encoder = frozen_copy(nn.Sequential(self.encoder, self.projector))
        self.queue = Queue(queue_size, out_dim)
        self.seen: tuple[Tensor, Tensor] | None = None  # images and their keys, for `after_step`

    @classmethod
    def resolve(cls, source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
        """Limit the queue to the number of samples."""
        return at_most_samples(source, given, cls, "queue_size")

    def views(self, spec: Spec) -> Views:
        """Return two views with the augmentations of v2."""
        return preset_views(spec, "mocov2", self.min_scale, noise=True)

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_dim), of unit length."""
        return unit(self.projector(self.encoder(x)))

    @torch.no_grad()
    def momentum_keys(self, x: Tensor, order: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_dim): the keys, computed in parts of a random order that the queries do not share."""
        return in_shuffled_parts(lambda part: unit(self.momentum_encoder(part)), x, order, self.num_splits)

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy of the positive key against the queue."""
        query = self.embed(batch["x"][:, 0])
        keys = self.momentum_keys(batch["x"][:, 1], batch["noise"].argsort())
        self.seen = batch["index"], keys
        logits = self.queue.contrasted(query, keys, batch["index"]) / self.temperature
        right = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
        metrics = {"accuracy": accuracy(logits, right)}
        return Loss(F.cross_entropy(logits, right), metrics, math.log(len(self.queue.rows) + 1))

    def after_step(self) -> None:
        """Update the momentum encoder and put the keys of the global batch into the queue."""
        ema_update(self.momentum_encoder, nn.Sequential(self.encoder, self.projector), self.momentum)
        if self.seen is not None:
            index, keys = (gather(part) for part in self.seen)
            self.queue.put(keys, index)
            self.seen = None

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the query and the key view of each image."""
        return view_panels(batch["x"], embed=self.embed if guess else None)
