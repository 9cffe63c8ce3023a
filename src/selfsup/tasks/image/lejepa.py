"""LeJEPA (Balestriero and LeCun, 2025): views agree, and the embeddings are an isotropic Gaussian; nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.losses import sigreg
from selfsup.nn import noise
from selfsup.nn.distributed import gather, sum_over_ranks
from selfsup.nn.heads import mlp
from selfsup.nn.image.pairs import each_view, view_panels
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.image import ImageViews, preset


class LeJEPA(Task):
    """(1 - `gaussian`) · invariance + `gaussian` · SIGReg (Balestriero and LeCun, 2025, section 5). No chance value.

    Invariance: the squared distance of every view from the mean of the image's large views. SIGReg: the Epps-Pulley
    distance of `slices` random projections from N(0, 1), 17 points on [0, 3], over the global batch; the directions are
    drawn anew each step, the same in every process. There is no teacher, no stopped gradient and no schedule.

    Batch: `x` (B, 2, C, H, W) float; `local` (B, 6, C, h, w) float; `noise` (B,) int64. Published: ImageNet, ViT-H/14,
    linear, 79%; CIFAR-10, ResNet-18, 300 epochs, SIGReg, 91.0%.

    Deviations: the projector suits small data.
    """

    paper = "Balestriero and LeCun, 2025"
    section = "images: distillation"

    def __init__(
        self, encoder: Encoder, *, gaussian: float = 0.05, slices: int = 256, hidden: int = 512, dim: int = 64
    ) -> None:
        super().__init__(encoder)
        self.gaussian, self.slices = gaussian, slices
        self.projector = mlp(encoder.dim, hidden, dim)

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return two large and six small views."""
        return ImageViews(spec, preset("lejepa", spec.size, getattr(self.encoder, "patch", 0)), noise=True)

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, dim)."""
        z: Tensor = self.projector(self.encoder(x))
        return z

    def loss(self, batch: Batch) -> Loss:
        """Return the weighted sum of invariance and SIGReg."""
        z = torch.cat([each_view(self.embed, batch[key]) for key in ("x", "local")])
        views = [gather(view) for view in z]
        centre = torch.stack(views[:2]).mean(0)
        invariance = torch.stack([(view - centre).square().mean() for view in views]).mean()
        step_key = sum_over_ranks(batch["noise"].sum())[None]
        directions = F.normalize(noise.normal(step_key, views[0].shape[1], self.slices)[0], dim=0)
        gaussian = torch.stack([sigreg(view, directions) for view in views]).mean()
        value = (1 - self.gaussian) * invariance + self.gaussian * gaussian
        return Loss(value, {"invariance": invariance.detach(), "sigreg": gaussian.detach()})

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the large and small views of each image."""
        return view_panels(batch["x"], batch["local"], embed=self.embed if guess else None)
