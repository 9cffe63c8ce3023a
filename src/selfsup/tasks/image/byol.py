"""BYOL (Grill et al., 2020): predict a target network's projection of the other view; no negatives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from selfsup.losses import unit
from selfsup.nn.ema import Momentum, ema_update, frozen_copy
from selfsup.nn.heads import each_view, mlp
from selfsup.nn.image.pairs import view_panels
from selfsup.spec import Spec
from selfsup.task import Batch, Encoder, Loss, Panel, Task, Views
from selfsup.views import preset_views


class BYOL(Task):
    """Predict the target network's projection of the other view (Grill et al., 2020, equation 2). No chance value.

    The target network is an EMA of the encoder and projector; `start_left` is the weight of its random start in it. The
    loss lies between 0 and 8: 2 - 2 cos, in both directions. It may rise while the representation improves; watch the
    collapse alarm. The online encoder is kept (section 3.1).

    Batch: `x` (B, 2, C, H, W) float.
    Published: ImageNet, ResNet-50, 1,000 epochs, linear, 74.3%; CIFAR-10, ResNet-18, 1,000 epochs, 92.6%.
    Deviations: heads and crops suit small data, the momentum the length of the run.

    Args:
        momentum: Momentum of the target network at the start; it rises to 1 along a cosine (section 3.2). By default
            from the number of steps: 0.97 for up to 1,333, 0.99 for 4,000, 0.996 from 10,000 on. The paper has 0.996
            for 1,000 epochs, 0.99 for 300 and 0.97 for 40, in [0, 1].
        hidden_dim: Width of the hidden layer of projector and predictor; 4096 in the paper, in [1, inf).
        out_dim: Dimension of the projection; 256 in the paper, in [1, inf).
        min_scale: Minimum fraction of the image's area in a view; 0.08 in the paper, in (0, 1].
    """

    paper = "Grill et al., 2020"
    section = "images: distillation"
    also = ("audio",)
    any_size = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        momentum: float | None = None,
        hidden_dim: int = 512,
        out_dim: int = 128,
        min_scale: float = 0.2,
    ) -> None:
        super().__init__(encoder)
        self.momentum, self.min_scale = Momentum(momentum), min_scale
        self.projector, self.predictor = mlp(encoder.dim, hidden_dim, out_dim), mlp(out_dim, hidden_dim, out_dim)
        self.target = frozen_copy(nn.Sequential(self.encoder, self.projector))

    def views(self, spec: Spec) -> Views:
        """Return two views (appendix B)."""
        return preset_views(spec, "byol", self.min_scale)

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_dim): the projection."""
        return self.projector(self.encoder(x))

    def loss(self, batch: Batch) -> Loss:
        """Return 2 - 2 cos(prediction, target projection of the other view), in both directions."""
        p1, p2 = each_view(lambda x: self.predictor(self.embed(x)), batch["x"])
        with torch.no_grad():
            z1, z2 = each_view(self.target, batch["x"])
        cosine = (unit(p1) * unit(z2)).sum(1) + (unit(p2) * unit(z1)).sum(1)
        return Loss(4 - 2 * cosine.mean(), self.momentum.metrics())

    def after_step(self) -> None:
        """Update the target network."""
        online = nn.Sequential(self.encoder, self.projector)
        ema_update(self.target, online, self.momentum.advance(self.progress, self.steps))

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the two views of each image."""
        return view_panels(batch["x"], embed=self.embed if guess else None)
