"""SwAV (Caron et al., 2020): predict, from one view, the cluster to which another was assigned online."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.losses import product, sinkhorn, unit
from selfsup.nn.distributed import gather
from selfsup.nn.heads import mlp
from selfsup.nn.image.pairs import each_view, view_panels
from selfsup.nn.queue import Queue
from selfsup.source import Source
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task, at_most_samples
from selfsup.views.image import ImageViews, preset


class SwAV(Task):
    """Swap assignments to prototypes between views (Caron et al., 2020, equation 3, multi-crop). Chance is ln K.

    Each of the two large views is assigned to K `prototypes` so that all are used equally: Sinkhorn-Knopp over the
    global batch and, from `queue_after` of the training on, `queue` past embeddings for each view, which a batch that
    is smaller than the number of prototypes needs (section 3.1). All other views predict the assignment. The prototypes
    have unit length after each step, and do not move before `freeze` of the training is over.

    Batch: `x` (B, 2, C, H, W) float; `local` (B, 6, C, h, w) float. Published: ImageNet, ResNet-50, 800 epochs, linear,
    75.3%; CIFAR-10, ResNet-18, 1,000 epochs, 89.2%.

    Deviations: prototypes, queue and projector suit small data (the paper: 3,000; 3,840 from epoch 15; 2048-128), and
    so does a sharper `epsilon` (the paper: 0.05): with small batches assignments are else nearly uniform, and the loss
    stays at its chance value. In a short training embeddings change too fast for the queue before half of it is over.
    """

    paper = "Caron et al., 2020"
    section = "images: clustering"

    def __init__(
        self,
        encoder: Encoder,
        *,
        prototypes: int = 300,
        temperature: float = 0.1,
        epsilon: float = 0.02,
        iterations: int = 3,
        queue: int = 1024,
        queue_after: float = 0.5,
        freeze: float = 0.01,
        hidden: int = 512,
        dim: int = 128,
    ) -> None:
        super().__init__(encoder)
        self.temperature, self.epsilon, self.iterations = temperature, epsilon, iterations
        self.queue_after, self.freeze = queue_after, freeze
        self.projector = mlp(encoder.dim, hidden, dim)
        self.prototypes = nn.Linear(dim, prototypes, bias=False)
        self.queues = nn.ModuleList(Queue(queue, dim) for _ in range(2)) if queue else None
        self.seen: list[Tensor] = []
        self._unit_prototypes()

    @classmethod
    def resolve(cls, source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
        """No more prototypes than samples, and a queue no longer than the data."""
        return at_most_samples(source, given, cls, "queue", "prototypes")

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return two large and six small views (section 3.2)."""
        return ImageViews(spec, preset("swav", spec.size, getattr(self.encoder, "patch", 0)))

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, dim), of unit length."""
        return unit(self.projector(self.encoder(x)))

    def scores(self, z: Tensor) -> Tensor:
        """(B, dim) -> (B, K): the cosine to each prototype."""
        return product(z, self.prototypes.weight.T)

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy between each large view's assignment and the other views' predictions."""
        z = [gather(view) for key in ("x", "local") for view in each_view(self.embed, batch[key])]
        self.seen = [view.detach() for view in z[:2]]
        predictions = [F.log_softmax(self.scores(view) / self.temperature, 1) for view in z]
        losses = []
        for large in range(2):
            code = self.assign(large)
            others = [prediction for view, prediction in enumerate(predictions) if view != large]
            losses += [-(code * prediction).sum(1).mean() for prediction in others]
        return Loss(torch.stack(losses).mean(), chance=math.log(self.prototypes.out_features))

    @torch.no_grad()
    def assign(self, large: int) -> Tensor:
        """Return the assignment (B, K) of a large view."""
        z = self.seen[large]
        if self.queues is not None and self.progress >= self.queue_after:
            queue = self.queues[large]
            assert isinstance(queue, Queue)
            z = torch.cat([z, queue.rows])
        return sinkhorn(self.scores(z), self.epsilon, self.iterations)[: len(self.seen[large])]

    def lr_of(self, child: str, scheduled: float, peak: float) -> float:
        """Let the prototypes stay at first."""
        return 0.0 if child == "prototypes" and self.progress < self.freeze else scheduled

    def after_step(self) -> None:
        """Bring the prototypes to unit length, and remember the embeddings."""
        self._unit_prototypes()
        for queue, z in zip(self.queues or (), self.seen, strict=False):
            assert isinstance(queue, Queue)
            queue.put(z)
        self.seen = []

    @torch.no_grad()
    def _unit_prototypes(self) -> None:
        self.prototypes.weight.copy_(unit(self.prototypes.weight))

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the large and small views of each image."""
        return view_panels(batch["x"], batch["local"], embed=self.embed if guess else None)
