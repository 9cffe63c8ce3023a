"""BYOL (Grill et al., 2020): predict what an EMA encoder makes of the other view; no negatives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from selfsup.losses import unit
from selfsup.nn.ema import cosine_schedule, ema_update, frozen_copy
from selfsup.nn.heads import mlp
from selfsup.nn.image.pairs import each_view, view_panels
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.image import ImageViews, preset


class BYOL(Task):
    """Predict an EMA encoder's embedding of the other view (Grill et al., 2020, equation 2). No chance value.

    The loss lies between 0 and 8: 2 - 2 cos, in both directions. It may rise while the representation improves; watch
    the collapse alarm. `momentum` goes to 1 along a cosine (section 3.2). `scale` is the least share of
    the image's area in a view.

    Batch: `x` (B, 2, C, H, W) float. Published: ImageNet, ResNet-50, 1,000 epochs, linear, 74.3%; CIFAR-10, ResNet-18,
    1,000 epochs, 92.6%.

    Deviations: heads and momentum suit small data and short runs (the paper: 4096-256; 0.996 for 1,000 epochs, 0.99 for
    300, 0.97 for 40).
    """

    paper = "Grill et al., 2020"
    section = "images: distillation"

    def __init__(
        self, encoder: Encoder, *, momentum: float = 0.99, hidden: int = 512, dim: int = 128, scale: float = 0.08
    ) -> None:
        super().__init__(encoder)
        self.momentum, self.scale = momentum, scale
        self.projector, self.predictor = mlp(encoder.dim, hidden, dim), mlp(dim, hidden, dim)
        self.slow = frozen_copy(nn.Sequential(self.encoder, self.projector))

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return two views (appendix B)."""
        return ImageViews(spec, preset("byol", spec.size, scale=self.scale))

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, dim): the projection."""
        z: Tensor = self.projector(self.encoder(x))
        return z

    def loss(self, batch: Batch) -> Loss:
        """Return 2 - 2 cos(prediction, slow projection of the other view), both ways."""
        p1, p2 = each_view(lambda x: self.predictor(self.embed(x)), batch["x"])
        with torch.no_grad():
            z1, z2 = each_view(self.slow, batch["x"])
        cosine = (unit(p1) * unit(z2)).sum(1) + (unit(p2) * unit(z1)).sum(1)
        return Loss(4 - 2 * cosine.mean())

    def after_step(self) -> None:
        """Move the EMA encoder."""
        momentum = cosine_schedule(self.momentum, 1.0, self.progress)
        ema_update(self.slow[0], self.encoder, momentum)
        ema_update(self.slow[1], self.projector, momentum)

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the two views of each image."""
        return view_panels(batch["x"], embed=self.embed if guess else None)
