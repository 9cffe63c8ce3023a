"""VICReg (Bardes et al., 2022): one loss term each for invariance, variance and covariance."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from selfsup.base.distributed import gather
from selfsup.losses import vicreg_terms
from selfsup.nn.heads import each_view, mlp
from selfsup.nn.image.pairs import view_panels
from selfsup.spec import Spec
from selfsup.task import Batch, Encoder, Loss, Panel, Task, Views
from selfsup.views import preset_views


class VICReg(Task):
    """Make two views agree, every dimension vary, and no two dimensions correlate (Bardes et al., 2022, equation 6).

    All three terms are computed over the global batch. A `variance` term near 1 means collapse. Chance is
    0.99 · `variance`, the loss if the embedding is the same for all images.

    Batch: `x` (B, 2, C, H, W) float. Published: ImageNet, ResNet-50, 1,000 epochs, linear, 73.2%; CIFAR-10, ResNet-18,
    1,000 epochs, 92.1%.

    Deviations: expander and crops suit small data.

    Args:
        invariance: Weight of the distance between the two views, in [0, inf).
        variance: Weight of the hinge on each dimension's standard deviation, in [0, inf).
        covariance: Weight of the squared off-diagonal covariances, in [0, inf).
        hidden_dim: Width of the expander's two hidden layers; 8192 in the paper, in [1, inf).
        out_dim: Dimension of the embedding that the loss compares; 8192 in the paper, in [1, inf).
        min_scale: Minimum area of a crop as a fraction of the image; 0.08 in the paper, in (0, 1].
    """

    paper = "Bardes et al., 2022"
    section = "images: contrastive"
    also = ("audio",)
    any_size = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
        hidden_dim: int = 1024,
        out_dim: int = 1024,
        min_scale: float = 0.2,
    ) -> None:
        super().__init__(encoder)
        self.weights, self.min_scale = (invariance, variance, covariance), min_scale
        self.expander = mlp(encoder.dim, hidden_dim, hidden_dim, out_dim)

    def views(self, spec: Spec) -> Views:
        """Return two views (appendix C.1)."""
        return preset_views(spec, "vicreg", self.min_scale)

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_dim)."""
        return self.expander(self.encoder(x))

    def loss(self, batch: Batch) -> Loss:
        """Return the weighted sum of the three terms."""
        z1, z2 = (gather(z) for z in each_view(self.embed, batch["x"]))
        terms = vicreg_terms(z1, z2)
        names = ("invariance", "variance", "covariance")
        value = sum((weight * term for weight, term in zip(self.weights, terms, strict=True)), terms[0].new_zeros(()))
        return Loss(
            value, {name: term.detach() for name, term in zip(names, terms, strict=True)}, 0.99 * self.weights[1]
        )

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the two views of each image."""
        return view_panels(batch["x"], embed=self.embed if guess else None)
