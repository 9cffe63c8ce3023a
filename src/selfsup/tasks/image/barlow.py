"""Barlow Twins (Zbontar et al., 2021): each dimension agrees between two views, and no two say the same."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from selfsup.losses import barlow_twins
from selfsup.nn.distributed import gather
from selfsup.nn.heads import mlp
from selfsup.nn.image.pairs import each_view, view_panels
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.image import ImageViews, preset


class Barlow(Task):
    """Bring the cross-correlation of two views' embeddings to the identity (Zbontar et al., 2021, equation 1).

    The correlation is over the global batch. No chance value: views that have nothing in common give `dim`.
    `scale` is the least share of the image's area in a view.

    Batch: `x` (B, 2, C, H, W) float. Published: ImageNet, ResNet-50, 1,000 epochs, linear, 73.5%; CIFAR-10, ResNet-18,
    1,000 epochs, 92.1%.

    Deviations: the projector suits small data (the paper: 8192³).
    """

    paper = "Zbontar et al., 2021"
    section = "images: contrastive"

    def __init__(
        self, encoder: Encoder, *, redundancy: float = 0.0051, hidden: int = 1024, dim: int = 1024, scale: float = 0.08
    ) -> None:
        super().__init__(encoder)
        self.redundancy, self.scale = redundancy, scale
        self.projector = mlp(encoder.dim, hidden, hidden, dim)

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return BYOL's two views (section 2.2)."""
        return ImageViews(spec, preset("byol", spec.size, scale=self.scale))

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, dim)."""
        z: Tensor = self.projector(self.encoder(x))
        return z

    def loss(self, batch: Batch) -> Loss:
        """Return equation 1."""
        z1, z2 = (gather(z) for z in each_view(self.embed, batch["x"]))
        return Loss(barlow_twins(z1, z2, self.redundancy))

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the two views of each image."""
        return view_panels(batch["x"], embed=self.embed if guess else None)
