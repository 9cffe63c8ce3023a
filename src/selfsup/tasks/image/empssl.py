"""EMP-SSL (Tong et al., 2023): many small crops of an image agree with their mean, and each kind spreads out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from selfsup.base.distributed import gather
from selfsup.losses import product, unit
from selfsup.nn.heads import each_view, mlp
from selfsup.nn.image.pairs import view_panels
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.image import ImageViews, preset


class EMPSSL(Task):
    """Pull many crops of an image to their mean while the coding rate of the batch stays large (Tong et al., 2023).

    The loss is -mean_i R(Z_i) - λ · mean cos(z_i, z̄), with Z_i (B, d) the i-th crops of all images, of unit length, and
    R(Z) = ½ log det(I + d / (B ε²) ZᵀZ) over the global batch (equations 3 to 5): crops are many, so that few epochs
    do. There is no chance value.

    Batch: `x` (B, `num_crops`, C, h, w) float.
    Published: CIFAR-10, ResNet-18, linear, 20 crops, 1, 10 and 30 epochs: 80.6%, 90.7%, 93.1%.

    Deviations: crops keep their resolution instead of being enlarged to that of the image, which costs a quarter and
    shows things at the size at which whole images are read; the paper reads the mean of many crops.

    Args:
        num_crops: Crops of an image; 20 in the paper, in [2, inf).
        crop_scale: Area of each crop as a fraction of the image, in (0, 1].
        invariance: Weight λ of the similarity to the mean, in [0, inf).
        epsilon: The squared distortion ε² of the coding rate, in (0, inf).
        hidden_dim: Width of the hidden layer of the projector; 4096 in the paper, in [1, inf).
        out_dim: Dimension of the embedding; 1024 in the paper, in [1, inf).
    """

    paper = "Tong et al., 2023"
    section = "images: contrastive"
    any_size = True
    defaults: ClassVar[Mapping[str, Any]] = {"batch_size": 64}  # times the crops; 100 in the paper

    def __init__(
        self,
        encoder: Encoder,
        *,
        num_crops: int = 12,
        crop_scale: float = 0.25,
        invariance: float = 200.0,
        epsilon: float = 0.2,
        hidden_dim: int = 512,
        out_dim: int = 256,
    ) -> None:
        super().__init__(encoder)
        self.num_crops, self.crop_scale, self.invariance, self.epsilon = num_crops, crop_scale, invariance, epsilon
        self.projector = mlp(encoder.dim, hidden_dim, out_dim)

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return crops of one area, with SimCLR's colours."""
        patch = getattr(self.encoder, "patch", 0) or 1
        side = max(round(spec.size * self.crop_scale**0.5 / patch), 2) * patch
        crop = preset("simclr", spec.size)["x"]
        scale = (self.crop_scale, self.crop_scale)
        size = min(spec.size, max(side, 8))  # encoders of small images need 8 pixels
        return ImageViews(spec, {"x": replace(crop, count=self.num_crops, size=size, scale=scale, ratio=(1.0, 1.0))})

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, out_dim), of unit length."""
        return unit(self.projector(self.encoder(x)))

    def loss(self, batch: Batch) -> Loss:
        """Return minus the mean coding rate, minus λ times the mean cosine with the mean crop."""
        z = torch.stack([gather(view) for view in each_view(self.embed, batch["x"])])
        rate = coding_rate(z, self.epsilon).mean()
        cosine = (z * unit(z.mean(0))).sum(2).mean()
        return Loss(-rate - self.invariance * cosine, {"coding rate": rate.detach(), "cosine": cosine.detach()})

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the crops of each image."""
        return view_panels(batch["x"], embed=self.embed if guess else None)


def coding_rate(z: Tensor, epsilon: float) -> Tensor:
    """Return ½ log det(I + d / (n ε²) zᵀz) of each of the matrices z (..., n, d), by the smaller of zᵀz and zzᵀ."""
    n, d = z.shape[-2:]
    gram = product(z, z.mT) if n < d else product(z.mT, z)
    with torch.autocast(z.device.type, enabled=False):
        root = torch.linalg.cholesky(torch.eye(len(gram[0]), device=z.device) + d / (n * epsilon) * gram)
    return root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
