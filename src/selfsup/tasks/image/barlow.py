"""Barlow Twins (Zbontar et al., 2021): each dimension agrees between two views, and no two are redundant."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from selfsup.base.distributed import gather
from selfsup.losses import barlow_twins
from selfsup.nn.heads import each_view, mlp
from selfsup.nn.image.pairs import view_panels
from selfsup.spec import Spec
from selfsup.task import Batch, Encoder, Loss, Panel, Task, Views
from selfsup.views import preset_views


class Barlow(Task):
    """Bring the cross-correlation of two views' embeddings to the identity (Zbontar et al., 2021, equation 1).

    The correlation is over the global batch. Chance is `out_dim`, the loss if the embedding is the same for all images.

    Batch: `x` (B, 2, C, H, W) float.
    Published: ImageNet, ResNet-50, 1,000 epochs, linear, 73.5%; CIFAR-10, ResNet-18, 1,000 epochs, 92.1%.
    Deviations: a narrower projector and larger crops, to suit small data.

    Args:
        redundancy: Weight λ of the redundancy reduction term, in [0, inf).
        hidden_dim: Width of the projector's two hidden layers; 8192 in the paper, in [1, inf).
        out_dim: Dimension of the embedding; 8192 in the paper, in [1, inf).
        min_scale: Minimum fraction of the image's area in a view; 0.08 in the paper, in (0, 1].
    """

    paper = "Zbontar et al., 2021"
    section = "images: contrastive"
    also = ("audio",)
    any_size = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        redundancy: float = 0.0051,
        hidden_dim: int = 1024,
        out_dim: int = 1024,
        min_scale: float = 0.2,
    ) -> None:
        super().__init__(encoder)
        self.redundancy, self.min_scale = redundancy, min_scale
        self.projector = mlp(encoder.dim, hidden_dim, hidden_dim, out_dim)

    def views(self, spec: Spec) -> Views:
        """Return BYOL's two views (section 2.2)."""
        return preset_views(spec, "byol", self.min_scale)

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_dim)."""
        return self.projector(self.encoder(x))

    def loss(self, batch: Batch) -> Loss:
        """Return equation 1."""
        z1, z2 = (gather(z) for z in each_view(self.embed, batch["x"]))
        return Loss(barlow_twins(z1, z2, self.redundancy), chance=float(z1.shape[1]))

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the two views of each image."""
        return view_panels(batch["x"], embed=self.embed if guess else None)
