"""SimSiam (Chen and He, 2021): predict the other view's embedding, and stop its gradient."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from selfsup.losses import unit
from selfsup.nn.heads import mlp
from selfsup.nn.image.pairs import each_view, view_panels
from selfsup.nn.norm import BatchNorm
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.image import ImageViews, preset


class SimSiam(Task):
    """Maximise the cosine of a prediction and the other view's fixed projection (Chen and He, 2021, algorithm 1).

    The loss lies between -1 and 1; -1 with a `std` (of the normalized projection, times √dim) near 0 is a collapse
    (section 4.1). The last BatchNorm of the projector has no weights, the predictor none at its end, and its learning
    rate stays constant (section 4.2). `scale` is the least share of the image's area in a view. No chance value.

    Batch: `x` (B, 2, C, H, W) float. Published: ImageNet, ResNet-50, 100 epochs, linear, 68.1%; CIFAR-10, ResNet-18,
    1,000 epochs, 90.5%.

    Deviations: heads suit small data (the paper: projector 2048³, predictor 2048-512-2048).
    """

    paper = "Chen and He, 2021"
    section = "images: distillation"

    def __init__(self, encoder: Encoder, *, hidden: int = 512, dim: int = 512, scale: float = 0.2) -> None:
        super().__init__(encoder)
        self.scale = scale
        self.projector = nn.Sequential(mlp(encoder.dim, hidden, dim), BatchNorm(dim, affine=False))
        self.predictor = mlp(dim, max(1, dim // 4), dim)

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return MoCo v2's two views (section 4)."""
        return ImageViews(spec, preset("mocov2", spec.size, scale=self.scale))

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, dim): the projection."""
        z: Tensor = self.projector(self.encoder(x))
        return z

    def loss(self, batch: Batch) -> Loss:
        """Return -cos(prediction, fixed projection of the other view), averaged over both ways."""
        z1, z2 = each_view(self.embed, batch["x"])
        p1, p2 = self.predictor(z1), self.predictor(z2)
        fixed1, fixed2 = unit(z1.detach()), unit(z2.detach())
        cosine = ((unit(p1) * fixed2).sum(1) + (unit(p2) * fixed1).sum(1)) / 2
        return Loss(-cosine.mean(), {"std": fixed1.std(0).mean() * fixed1.shape[1] ** 0.5})

    def lr_of(self, child: str, scheduled: float, peak: float) -> float:
        """Return the peak for the predictor, always."""
        return peak if child == "predictor" else scheduled

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the two views of each image."""
        return view_panels(batch["x"], embed=self.embed if guess else None)
