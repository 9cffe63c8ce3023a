"""LeJEPA (Balestriero and LeCun, 2025): views agree, and embeddings are an isotropic Gaussian; nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from selfsup.losses import sigreg
from selfsup.nn import noise
from selfsup.nn.heads import mlp
from selfsup.nn.image.pairs import all_crops, view_panels
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.image import ImageViews, preset


class LeJEPA(Task):
    """Pull views together and make embeddings isotropic Gaussian by SIGReg (Balestriero and LeCun, 2025, section 5).

    The loss is (1 - λ) · invariance + λ · SIGReg. Invariance: the squared distance of every view from the mean of the
    image's large views. SIGReg: the Epps-Pulley distance of random projections from N(0, 1), 17 points on [0, 3], over
    the global batch; the directions are drawn anew each step, the same in every process. There is no teacher, no
    stop-gradient, no schedule and no chance value.

    Batch: `x` (B, 2, C, H, W) float; `local` (B, 6, C, h, w) float; `noise` (B,) int64.
    Published: ImageNet, ViT-H/14, linear, 79%; CIFAR-10, ResNet-18, 300 epochs, SIGReg, 91.0%.

    Deviations: a projector for small data.

    Args:
        sigreg_weight: Weight λ of SIGReg; invariance has 1 - λ, in [0, 1].
        num_slices: Random projections for SIGReg, in [1, inf).
        hidden_dim: Width of the hidden layer of the projector, in [1, inf).
        out_dim: Dimension of the embedding, in [1, inf).
    """

    paper = "Balestriero and LeCun, 2025"
    section = "images: distillation"
    any_size = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        sigreg_weight: float = 0.05,
        num_slices: int = 256,
        hidden_dim: int = 512,
        out_dim: int = 64,
    ) -> None:
        super().__init__(encoder)
        self.sigreg_weight, self.num_slices = sigreg_weight, num_slices
        self.projector = mlp(encoder.dim, hidden_dim, out_dim)

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return two large and six small views."""
        return ImageViews(spec, preset("lejepa", spec.size, getattr(self.encoder, "patch", 0)), noise=True)

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_dim)."""
        return self.projector(self.encoder(x))

    def loss(self, batch: Batch) -> Loss:
        """Return the weighted sum of invariance and SIGReg."""
        views = all_crops(self.embed, batch).unbind()
        centre = torch.stack(views[:2]).mean(0)
        invariance = torch.stack([(view - centre).square().mean() for view in views]).mean()
        directions = noise.directions(batch["noise"], centre.shape[1], self.num_slices)
        regularizer = torch.stack([sigreg(view, directions) for view in views]).mean()
        value = (1 - self.sigreg_weight) * invariance + self.sigreg_weight * regularizer
        return Loss(value, {"invariance": invariance.detach(), "sigreg": regularizer.detach()})

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the large and small views of each image."""
        return view_panels(batch["x"], batch["local"], embed=self.embed if guess else None)
