"""MoCo v3 (Chen et al., 2021): contrast with a momentum encoder's keys of the same batch, without a queue."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from selfsup.base.distributed import gather
from selfsup.losses import info_nce, unit
from selfsup.nn.ema import Momentum, ema_update, frozen_copy
from selfsup.nn.heads import each_view, mlp
from selfsup.nn.image.pairs import view_panels
from selfsup.nn.norm import BatchNorm
from selfsup.spec import Spec
from selfsup.task import Batch, Encoder, Loss, Panel, Task, Views
from selfsup.views import preset_views


class MoCoV3(Task):
    """Find a momentum encoder's key of the other view among those of the batch (Chen et al., 2021, algorithm 1).

    Each view is a query and a key; the loss is multiplied by twice the temperature (section 3). The patch embedding of
    a vision transformer stays as it was initialized (section 4.2: training is unstable otherwise). The base encoder,
    which makes the queries, is kept. `start_left` is the weight of the random start in the momentum encoder. Chance is
    4 · `temperature` · ln B.

    Batch: `x` (B, 2, C, H, W) float.
    Published: ImageNet, ResNet-50, linear, 100/300/1,000 epochs: 68.9/72.8/74.6%; CIFAR-10, ResNet-18, 1,000 epochs,
    93.1%.

    Deviations: smaller heads for small data, with a projector of two layers (three in the paper for transformers).

    Args:
        temperature: Divides the cosine similarities; 1.0 in the paper for ResNet-50, in (0, inf).
        momentum: Momentum of the momentum encoder at the start; it rises to 1 along a cosine. By default from the
            number of steps: 0.97 for up to 1,333, 0.99 for 4,000, 0.996 from 10,000 on; 0.99 in the paper, in [0, 1].
        hidden_dim: Width of the hidden layers of projector and predictor; 4,096 in the paper, in [1, inf).
        out_dim: Dimension of the embedding that the loss compares; 256 in the paper, in [1, inf).
        min_scale: Smallest area of a crop as a fraction of the image; 0.08 in the paper for transformers, in (0, 1].
    """

    paper = "Chen et al., 2021"
    section = "images: contrastive"
    also = ("audio",)
    any_size = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        temperature: float = 0.2,
        momentum: float | None = None,
        hidden_dim: int = 512,
        out_dim: int = 128,
        min_scale: float = 0.2,
    ) -> None:
        super().__init__(encoder)
        self.temperature, self.momentum, self.min_scale = temperature, Momentum(momentum), min_scale
        for name, module in self.encoder.named_modules():
            if name.endswith("patch_embed"):
                module.requires_grad_(False)
        self.projector = nn.Sequential(mlp(encoder.dim, hidden_dim, out_dim), BatchNorm(out_dim, affine=False))
        self.predictor = nn.Sequential(mlp(out_dim, hidden_dim, out_dim), BatchNorm(out_dim, affine=False))
        self.momentum_encoder = frozen_copy(nn.Sequential(self.encoder, self.projector))

    def views(self, spec: Spec) -> Views:
        """Return BYOL's two views (section 4)."""
        return preset_views(spec, "byol", self.min_scale)

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_dim), of unit length: the query."""
        return unit(self.predictor(self.projector(self.encoder(x))))

    def loss(self, batch: Batch) -> Loss:
        """Return InfoNCE in both directions over the global batch."""
        q1, q2 = (gather(q) for q in each_view(self.embed, batch["x"]))
        with torch.no_grad():
            k1, k2 = (gather(unit(k)) for k in each_view(self.momentum_encoder, batch["x"]))
        both = info_nce(q1, k2, self.temperature) + info_nce(q2, k1, self.temperature)
        return Loss(2 * self.temperature * both, self.momentum.metrics(), 4 * self.temperature * math.log(len(q1)))

    def after_step(self) -> None:
        """Update the momentum encoder."""
        online = nn.Sequential(self.encoder, self.projector)
        ema_update(self.momentum_encoder, online, self.momentum.advance(self.progress, self.steps))

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the two views of each image."""
        return view_panels(batch["x"], embed=self.embed if guess else None)
