"""MoCo v3 (Chen et al., 2021): contrast with the keys of an EMA encoder in the same batch, without a queue."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from selfsup.losses import info_nce, unit
from selfsup.nn.distributed import gather
from selfsup.nn.ema import cosine_schedule, ema_update, frozen_copy
from selfsup.nn.heads import mlp
from selfsup.nn.image.pairs import each_view, view_panels
from selfsup.nn.norm import BatchNorm
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.image import ImageViews, preset


class MoCoV3(Task):
    """Predict an EMA encoder's embedding of the other view, among those of the batch (Chen et al., 2021, algorithm 1).

    Both views are query and key in turn; the loss is multiplied by twice the temperature (section 3). A vision
    transformer's patch embedding stays as it was drawn (section 4.2: training is unstable otherwise). The momentum goes
    to 1 along a cosine. `scale` is the least share of the image's area in a view. Chance is 4 · `temperature` · ln B.

    Batch: `x` (B, 2, C, H, W) float. Published: ImageNet, ResNet-50, linear, 100/300/1,000 epochs: 68.9/72.8/74.6%;
    CIFAR-10, ResNet-18, 1,000 epochs, 93.1%.

    Deviations: heads suit small data (the paper: 4096-256, projector of three layers for transformers); temperature 0.2
    for every encoder (the paper: 1.0 for ResNet-50).
    """

    paper = "Chen et al., 2021"
    section = "images: contrastive"

    def __init__(
        self,
        encoder: Encoder,
        *,
        temperature: float = 0.2,
        momentum: float = 0.99,
        hidden: int = 512,
        dim: int = 128,
        scale: float = 0.08,
    ) -> None:
        super().__init__(encoder)
        self.temperature, self.momentum, self.scale = temperature, momentum, scale
        for name, module in self.encoder.named_modules():
            if name.endswith("patch_embed"):
                module.requires_grad_(False)
        self.projector = nn.Sequential(mlp(encoder.dim, hidden, dim), BatchNorm(dim, affine=False))
        self.predictor = nn.Sequential(mlp(dim, hidden, dim), BatchNorm(dim, affine=False))
        self.slow = frozen_copy(nn.Sequential(self.encoder, self.projector))

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return BYOL's two views (section 4)."""
        return ImageViews(spec, preset("byol", spec.size, scale=self.scale))

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, dim), of unit length: the query."""
        return unit(self.predictor(self.projector(self.encoder(x))))

    def loss(self, batch: Batch) -> Loss:
        """Return InfoNCE of both directions over the global batch."""
        q1, q2 = (gather(q) for q in each_view(self.embed, batch["x"]))
        with torch.no_grad():
            k1, k2 = (gather(unit(k)) for k in each_view(self.slow, batch["x"]))
        both = info_nce(q1, k2, self.temperature) + info_nce(q2, k1, self.temperature)
        return Loss(2 * self.temperature * both, chance=4 * self.temperature * math.log(len(q1)))

    def after_step(self) -> None:
        """Move the EMA encoder."""
        momentum = cosine_schedule(self.momentum, 1.0, self.progress)
        ema_update(self.slow[0], self.encoder, momentum)
        ema_update(self.slow[1], self.projector, momentum)

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the two views of each image."""
        return view_panels(batch["x"], embed=self.embed if guess else None)
