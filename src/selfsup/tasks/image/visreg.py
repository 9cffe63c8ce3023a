"""VISReg (Wu et al., 2026): views agree, and the scale and the shape of the embeddings are those of a Gaussian."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from selfsup.losses import product
from selfsup.nn import noise
from selfsup.nn.heads import mlp
from selfsup.nn.image.pairs import all_crops, view_panels
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.image import ImageViews, preset


class VISReg(Task):
    """Pull views together, and regularize scale and shape of the embeddings apart (Wu et al., 2026, algorithm 1).

    The loss is (1 - λ) · invariance + λ · (scale + shape + centre), of all views over the global batch. Invariance is
    LeJEPA's: the squared distance of every view from the mean of the large ones. Scale: (1 - std)² of each dimension,
    whose gradient does not vanish where all embeddings are the same (equation 1). Shape: the squared sliced
    Wasserstein distance from N(0, 1) of what is standardised by a detached std (equations 2 and 5). Centre: the squared
    mean (equation 6). There is no chance value.

    Batch: `x` (B, 2, C, H, W) float; `local` (B, 6, C, h, w) float; `noise` (B,) int64.

    Deviations: a smaller projector and fewer slices. LeJEPA's views.

    Args:
        regularizer_weight: Weight λ; 0.9 on ImageNet, 0.6 on small data (table 12), in [0, 1].
        num_slices: Random projections for the shape; 4096 in the paper, in [1, inf).
        hidden_dim: Width of the hidden layer of the projector, in [1, inf).
        out_dim: Dimension of the embedding, in [1, inf).
    """

    paper = "Wu et al., 2026"
    section = "images: distillation"
    any_size = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        regularizer_weight: float = 0.6,
        num_slices: int = 256,
        hidden_dim: int = 512,
        out_dim: int = 64,
    ) -> None:
        super().__init__(encoder)
        self.regularizer_weight, self.num_slices = regularizer_weight, num_slices
        self.projector = mlp(encoder.dim, hidden_dim, out_dim)

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return two large and six small views."""
        return ImageViews(spec, preset("lejepa", spec.size, getattr(self.encoder, "patch", 0)), noise=True)

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_dim)."""
        return self.projector(self.encoder(x))

    def loss(self, batch: Batch) -> Loss:
        """Return the weighted sum of the four terms."""
        z = all_crops(self.embed, batch)
        invariance = (z - z[:2].mean(0)).square().mean()
        directions = noise.directions(batch["noise"], z.shape[2], self.num_slices)
        terms = dict(zip(("scale", "shape", "centre"), scale_shape_centre(z, directions), strict=True))
        value = (1 - self.regularizer_weight) * invariance + self.regularizer_weight * sum(terms.values())
        return Loss(value, {"invariance": invariance.detach()} | {name: term.detach() for name, term in terms.items()})

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the large and small views of each image."""
        return view_panels(batch["x"], batch["local"], embed=self.embed if guess else None)


def scale_shape_centre(z: Tensor, directions: Tensor, eps: float = 1e-4) -> tuple[Tensor, Tensor, Tensor]:
    """Return the three terms of embeddings z (V, N, d), each view on its own, along unit `directions` (d, M)."""
    mean = z.mean(1, keepdim=True)
    std = ((z - mean).square().mean(1, keepdim=True) + eps**2).sqrt()
    sorted_projections = product((z - mean) / (std.detach() + eps), directions.to(z.dtype)).sort(1).values
    place = torch.arange(1, z.shape[1] + 1, dtype=z.dtype, device=z.device) / (z.shape[1] + 1)
    normal = torch.special.ndtri(place)[:, None]
    return (1 - std).square().mean(), (sorted_projections - normal).square().mean(), mean.square().mean()
