"""SwAV (Caron et al., 2020): predict from one view the cluster to which another one is assigned online."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.losses import product, sinkhorn, unit
from selfsup.nn.heads import mlp
from selfsup.nn.image.pairs import all_crops, view_panels
from selfsup.nn.queue import Queue
from selfsup.source import Source
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task, at_most_samples
from selfsup.views.image import ImageViews, multi_crop


class SwAV(Task):
    """Swap assignments to prototypes between views (Caron et al., 2020, equation 3, multi-crop). Chance is ln K.

    Each of the two large views is assigned to the K prototypes so that all are used equally: Sinkhorn-Knopp over the
    global batch and a queue of past embeddings for each view, which a batch smaller than the number of prototypes needs
    (section 3.1). All other views predict the assignment. The prototypes are normalized after each step.

    Batch: `x` (B, 2, C, H, W) float; `local` (B, 6, C, h, w) float. Published: ImageNet, ResNet-50, 800 epochs, linear,
    75.3%; CIFAR-10, ResNet-18, 1,000 epochs, 89.2%.

    Deviations: prototypes, queue and projector suit small data, and so do larger crops (0.14 of the area divides the
    large from the small ones in the paper) and a sharper `epsilon`: with small batches the assignments would otherwise
    be nearly uniform and the loss would stay at chance. The queue starts late because in the first half of a short
    training embeddings change too fast for it.

    Args:
        num_prototypes: Prototypes, by default at most one for two samples; 3,000 in the paper, in [1, inf).
        temperature: Divides the cosines between embeddings and prototypes, in (0, inf).
        epsilon: Entropy regularization of the assignments, smaller is harder; 0.05 in the paper, in (0, inf).
        sinkhorn_iterations: Iterations of Sinkhorn-Knopp, in [1, inf).
        queue_size: Past embeddings kept for each large view; 0 for none; 3,840 in the paper, in [0, inf).
        queue_start: Fraction of the training after which the queue is used; epoch 15 in the paper, in [0, 1].
        freeze_prototypes: Fraction of the training during which the prototypes do not move, in [0, 1].
        hidden_dim: Width of the projector's hidden layer; 2048 in the paper, in [1, inf).
        out_dim: Dimension of the embedding and of the prototypes, in [1, inf).
    """

    paper = "Caron et al., 2020"
    section = "images: clustering"
    any_size = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        num_prototypes: int = 300,
        temperature: float = 0.1,
        epsilon: float = 0.02,
        sinkhorn_iterations: int = 3,
        queue_size: int = 1024,
        queue_start: float = 0.5,
        freeze_prototypes: float = 0.01,
        hidden_dim: int = 512,
        out_dim: int = 128,
    ) -> None:
        super().__init__(encoder)
        self.temperature, self.epsilon, self.sinkhorn_iterations = temperature, epsilon, sinkhorn_iterations
        self.queue_start, self.freeze_prototypes = queue_start, freeze_prototypes
        self.projector = mlp(encoder.dim, hidden_dim, out_dim)
        self.prototypes = nn.Linear(out_dim, num_prototypes, bias=False)
        self.queues = nn.ModuleList(Queue(queue_size, out_dim) for _ in range(2)) if queue_size else None
        self.large: list[Tensor] = []  # the embeddings of the large views, for `after_step`
        self._normalize_prototypes()

    @classmethod
    def resolve(cls, source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
        """Limit the queue to the number of samples, and the prototypes to half of it: one of one image says nothing."""
        queue = at_most_samples(source, given, cls, "queue_size")
        return queue | at_most_samples(source, given, cls, "num_prototypes", per=2)

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return two large and six small views (section 3.2), of more and of less than 0.4 of the area."""
        return ImageViews(spec, multi_crop(spec.size, 6, getattr(self.encoder, "patch", 0), name="swav"))

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_dim), of unit length."""
        return unit(self.projector(self.encoder(x)))

    def scores(self, z: Tensor) -> Tensor:
        """(B, out_dim) -> (B, K): the cosine to each prototype."""
        return product(z, self.prototypes.weight.T)

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy between each large view's assignment and the other views' predictions."""
        z = all_crops(self.embed, batch)
        self.large = [view.detach() for view in z[:2]]
        predictions = [F.log_softmax(self.scores(view) / self.temperature, 1) for view in z]
        losses = []
        for target in range(2):
            assignment = self.assign(target)
            others = [prediction for view, prediction in enumerate(predictions) if view != target]
            losses += [-(assignment * prediction).sum(1).mean() for prediction in others]
        return Loss(torch.stack(losses).mean(), chance=math.log(self.prototypes.out_features))

    @torch.no_grad()
    def assign(self, view: int) -> Tensor:
        """Return the assignment (B, K) of a large view."""
        z = self.large[view]
        if self.queues is not None and self.progress >= self.queue_start:
            queue = self.queues[view]
            assert isinstance(queue, Queue)
            z = torch.cat([z, queue.rows])
        return sinkhorn(self.scores(z), self.epsilon, self.sinkhorn_iterations)[: len(self.large[view])]

    def lr_of(self, child: str, scheduled: float, peak: float) -> float:
        """Freeze the prototypes at first."""
        return 0.0 if child == "prototypes" and self.progress < self.freeze_prototypes else scheduled

    def after_step(self) -> None:
        """Normalize the prototypes and append the embeddings to the queues."""
        self._normalize_prototypes()
        for queue, z in zip(self.queues or (), self.large, strict=False):
            assert isinstance(queue, Queue)
            queue.put(z)
        self.large = []

    @torch.no_grad()
    def _normalize_prototypes(self) -> None:
        self.prototypes.weight.copy_(unit(self.prototypes.weight))

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the large and small views of each image."""
        return view_panels(batch["x"], batch["local"], embed=self.embed if guess else None)
