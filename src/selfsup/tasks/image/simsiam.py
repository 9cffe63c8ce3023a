"""SimSiam (Chen and He, 2021): predict the other view's projection, through which no gradient flows."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from selfsup.losses import unit
from selfsup.nn.heads import each_view, mlp
from selfsup.nn.image.pairs import view_panels
from selfsup.nn.norm import BatchNorm
from selfsup.spec import Spec
from selfsup.task import Batch, Encoder, Loss, Panel, Task, Views
from selfsup.views import preset_views


class SimSiam(Task):
    """Maximize the cosine of a prediction and the other view's projection, detached (Chen and He, 2021, algorithm 1).

    The loss lies between -1 and 1; -1 with a `std` (of the normalized projection, times √out_dim) near 0 means collapse
    (section 4.1). The projector's last BatchNorm has no affine weights, the predictor ends without one, and its
    learning rate stays constant (section 4.2). No chance value.

    Batch: `x` (B, 2, C, H, W) float. Published: ImageNet, ResNet-50, 100 epochs, linear, 68.1%; CIFAR-10, ResNet-18,
    1,000 epochs, 90.5%.

    Deviations: the heads suit small data, and the projector has two layers, not three.

    Args:
        hidden_dim: Width of the projector's hidden layer; 2048 in the paper, in [1, inf).
        out_dim: Dimension of the projection; the predictor's hidden layer has a quarter of it; 2048 in the paper,
            in [1, inf).
        min_scale: Minimum area of a crop as a fraction of the image, in (0, 1].
    """

    paper = "Chen and He, 2021"
    section = "images: distillation"
    also = ("audio",)
    any_size = True

    def __init__(self, encoder: Encoder, *, hidden_dim: int = 512, out_dim: int = 512, min_scale: float = 0.2) -> None:
        super().__init__(encoder)
        self.min_scale = min_scale
        self.projector = nn.Sequential(mlp(encoder.dim, hidden_dim, out_dim), BatchNorm(out_dim, affine=False))
        self.predictor = mlp(out_dim, max(1, out_dim // 4), out_dim)

    def views(self, spec: Spec) -> Views:
        """Return MoCo v2's two views (section 4)."""
        return preset_views(spec, "mocov2", self.min_scale)

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_dim): the projection."""
        return self.projector(self.encoder(x))

    def loss(self, batch: Batch) -> Loss:
        """Return -cos(prediction, detached projection of the other view), averaged over both directions."""
        z1, z2 = each_view(self.embed, batch["x"])
        p1, p2 = self.predictor(z1), self.predictor(z2)
        target1, target2 = unit(z1.detach()), unit(z2.detach())
        cosine = ((unit(p1) * target2).sum(1) + (unit(p2) * target1).sum(1)) / 2
        return Loss(-cosine.mean(), {"std": target1.std(0).mean() * target1.shape[1] ** 0.5})

    def lr_of(self, child: str, scheduled: float, peak: float) -> float:
        """Keep the predictor's learning rate constant."""
        return peak if child == "predictor" else scheduled

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the two views of each image."""
        return view_panels(batch["x"], embed=self.embed if guess else None)
