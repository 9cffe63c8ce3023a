"""NNCLR (Dwibedi et al., 2021): the nearest neighbour of one view among past images is the positive of the other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from selfsup.base.distributed import gather
from selfsup.losses import info_nce, product, unit
from selfsup.nn.heads import each_view, mlp
from selfsup.nn.image.pairs import view_panels
from selfsup.nn.norm import BatchNorm
from selfsup.nn.queue import Queue
from selfsup.source import Source
from selfsup.spec import Spec
from selfsup.task import Batch, Encoder, Loss, Panel, Task, Views, at_most_samples
from selfsup.views import preset_views


class NNCLR(Task):
    """Find, by the nearest neighbour of one view, the prediction of the other (Dwibedi et al., 2021, equation 3).

    The neighbour is looked up in a support set of past projections, so that the positive is *another* image and views
    need not bridge all that a class may differ in: crops and flips alone lose less here than in SimCLR (table 5). The
    loss is symmetric; first views enter the support set after it. Chance is ln B.

    Batch: `x` (B, 2, C, H, W) float; `index` (B,) int64.
    Published: ImageNet, ResNet-50, 1,000 epochs, linear, 75.4%.

    Deviations: smaller heads, and a support set for small data. In these an image's own past projection would often be
    its neighbour, and the task SimCLR again; it is left out.

    Args:
        queue_size: Projections of past images, at most the number of samples; 98,304 in the paper, in [1, inf).
        temperature: Divides the cosine similarities, in (0, inf).
        hidden_dim: Width of the hidden layers of the projector (two) and of the predictor (one); 2048 and 4096 in the
            paper, in [1, inf).
        out_dim: Dimension of the embedding that the loss compares; 256 in the paper, in [1, inf).
        min_scale: Smallest area of a crop as a fraction of the image, in (0, 1].
    """

    paper = "Dwibedi et al., 2021"
    section = "images: contrastive"
    also = ("audio",)
    any_size = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        queue_size: int = 4096,
        temperature: float = 0.1,
        hidden_dim: int = 512,
        out_dim: int = 128,
        min_scale: float = 0.2,
    ) -> None:
        super().__init__(encoder)
        self.temperature, self.min_scale = temperature, min_scale
        self.projector = nn.Sequential(mlp(encoder.dim, hidden_dim, hidden_dim, out_dim), BatchNorm(out_dim))
        self.predictor = mlp(out_dim, hidden_dim, out_dim)
        self.queue = Queue(queue_size, out_dim)
        self.seen: tuple[Tensor, Tensor] | None = None  # images and their projections, for `after_step`

    @classmethod
    def resolve(cls, source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
        """Limit the support set to the number of samples."""
        return at_most_samples(source, given, cls, "queue_size")

    def views(self, spec: Spec) -> Views:
        """Return two views of the same kind (section 4.1)."""
        return preset_views(spec, "simclr", self.min_scale)

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_dim): the projection."""
        return self.projector(self.encoder(x))

    @torch.no_grad()
    def neighbours(self, z: Tensor, index: Tensor) -> Tensor:
        """Return of unit projections z (B, out_dim) the nearest in the support set, of other images than `index`."""
        cosine = product(z, self.queue.rows.T).masked_fill(index[:, None] == self.queue.owners, -torch.inf)
        return self.queue.rows[cosine.argmax(1)]

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy of finding the prediction of the other view, averaged over both directions."""
        z = each_view(self.embed, batch["x"])
        predicted = [gather(unit(self.predictor(view))) for view in z]
        index, (z1, z2) = gather(batch["index"]), (gather(unit(view.detach())) for view in z)
        self.seen = index, z1
        near1, near2 = self.neighbours(z1, index), self.neighbours(z2, index)
        value = info_nce(near1, predicted[1], self.temperature) + info_nce(near2, predicted[0], self.temperature)
        with torch.no_grad():
            found = product(near1, predicted[1].T).argmax(1) == torch.arange(len(z1), device=z1.device)
        return Loss(value / 2, {"accuracy": found.float().mean()}, math.log(len(z1)))

    def after_step(self) -> None:
        """Put the projections of the global batch's first views into the support set."""
        if self.seen is not None:
            index, rows = self.seen
            self.queue.put(rows, index)
            self.seen = None

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the two views of each image."""
        return view_panels(batch["x"], embed=self.embed if guess else None)
