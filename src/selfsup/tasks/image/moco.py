"""MoCo (He et al., 2020; v2: Chen et al., 2020): find a view among a queue of past keys of an EMA encoder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.errors import UserError
from selfsup.losses import product, unit
from selfsup.nn.distributed import gather
from selfsup.nn.ema import ema_update, frozen_copy
from selfsup.nn.heads import accuracy
from selfsup.nn.image.pairs import view_panels
from selfsup.nn.queue import Queue
from selfsup.source import Source
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task, at_most_samples
from selfsup.views.image import ImageViews, preset


class MoCo(Task):
    """Find the key of an image's other view among `queue` keys of past batches (He et al., 2020, algorithm 1).

    The defaults are v2 (Chen et al., 2020): a projector with one hidden layer, blur, temperature 0.2. `hidden=0` and
    `temperature=0.07` are v1's. Keys enter the queue after the loss, or each positive would also be a negative. Chance
    is ln(`queue` + 1).

    The keys are computed on `splits` random parts of the batch, each with BatchNorm statistics of its own: the
    statistics that a query shares with its key would give it away (section 3.3, "shuffling BN"). `scale` is the least
    share of the image's area in a view.

    Batch: `x` (B, 2, C, H, W) float; `noise` (B,) int64. Published: ImageNet, ResNet-50, linear: v1, 200 epochs, 60.8%;
    v2, 200 epochs, 67.5%, 800 epochs, 71.1%. CIFAR-10, ResNet-18, 1,000 epochs: v2+ 92.9%.

    Deviations: queue and momentum suit small data (the paper: 65,536 and 0.999). Several processes shuffle within
    themselves.
    """

    paper = "He et al., 2020"
    section = "images: contrastive"

    def __init__(
        self,
        encoder: Encoder,
        *,
        queue: int = 4096,
        momentum: float = 0.99,
        temperature: float = 0.2,
        hidden: int = 512,
        dim: int = 128,
        splits: int = 4,
        scale: float = 0.2,
    ) -> None:
        super().__init__(encoder)
        if queue < 1 or splits < 1:
            raise UserError(f"--queue and --splits must be at least 1, not {queue} and {splits}")
        self.momentum, self.temperature, self.splits, self.scale = momentum, temperature, splits, scale
        before = [nn.Linear(encoder.dim, hidden), nn.ReLU(inplace=True)] if hidden else []
        self.projector = nn.Sequential(*before, nn.Linear(hidden or encoder.dim, dim))
        self.slow = frozen_copy(nn.Sequential(self.encoder, self.projector))
        self.queue = Queue(queue, dim)
        self.keys: Tensor | None = None

    @classmethod
    def resolve(cls, source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
        """A queue is no longer than the data."""
        return at_most_samples(source, given, cls, "queue")

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return two views as in v2."""
        return ImageViews(spec, preset("mocov2", spec.size, scale=self.scale), noise=True)

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, dim), of unit length."""
        return unit(self.projector(self.encoder(x)))

    @torch.no_grad()
    def slow_keys(self, x: Tensor, order: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, dim): computed in parts, in an order that has nothing to do with that of the queries."""
        parts = x[order].tensor_split(min(self.splits, max(1, len(x) // 2)))
        keys = torch.cat([unit(self.slow(part)) for part in parts])
        return torch.empty_like(keys).index_copy_(0, order, keys)

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy of the positive key among it and the queue."""
        query = self.embed(batch["x"][:, 0])
        self.keys = self.slow_keys(batch["x"][:, 1], batch["noise"].argsort())
        positive = (query * self.keys).sum(1, keepdim=True)
        logits = torch.cat([positive, product(query, self.queue.rows.T)], 1) / self.temperature
        right = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
        metrics = {"accuracy": accuracy(logits, right)}
        return Loss(F.cross_entropy(logits, right), metrics, math.log(len(self.queue.rows) + 1))

    def after_step(self) -> None:
        """Move the EMA encoder, and put the keys of the global batch into the queue."""
        ema_update(self.slow[0], self.encoder, self.momentum)
        ema_update(self.slow[1], self.projector, self.momentum)
        if self.keys is not None:
            self.queue.put(gather(self.keys))
            self.keys = None

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return query and key view of each image."""
        return view_panels(batch["x"], embed=self.embed if guess else None)
