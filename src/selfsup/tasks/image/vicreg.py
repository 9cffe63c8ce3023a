"""VICReg (Bardes et al., 2022): invariance, variance and covariance, each a term of its own."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from selfsup.losses import vicreg_terms
from selfsup.nn.distributed import gather
from selfsup.nn.heads import mlp
from selfsup.nn.image.pairs import each_view, view_panels
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.image import ImageViews, preset


class VICReg(Task):
    """Let two views agree, each dimension vary, and no two correlate (Bardes et al., 2022, equation 6).

    All three terms are of the global batch. A `variance` term near 1 is a collapse. No chance value.
    `scale` is the least share of the image's area in a view.

    Batch: `x` (B, 2, C, H, W) float. Published: ImageNet, ResNet-50, 1,000 epochs, linear, 73.2%; CIFAR-10, ResNet-18,
    1,000 epochs, 92.1%.

    Deviations: the expander suits small data (the paper: 8192³).
    """

    paper = "Bardes et al., 2022"
    section = "images: contrastive"

    def __init__(
        self,
        encoder: Encoder,
        *,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
        hidden: int = 1024,
        dim: int = 1024,
        scale: float = 0.08,
    ) -> None:
        super().__init__(encoder)
        self.weights, self.scale = (invariance, variance, covariance), scale
        self.expander = mlp(encoder.dim, hidden, hidden, dim)

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return two views (appendix C.1)."""
        return ImageViews(spec, preset("vicreg", spec.size, scale=self.scale))

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, dim)."""
        z: Tensor = self.expander(self.encoder(x))
        return z

    def loss(self, batch: Batch) -> Loss:
        """Return the weighted sum of the three terms."""
        z1, z2 = (gather(z) for z in each_view(self.embed, batch["x"]))
        terms = vicreg_terms(z1, z2)
        names = ("invariance", "variance", "covariance")
        value = sum((weight * term for weight, term in zip(self.weights, terms, strict=True)), terms[0].new_zeros(()))
        return Loss(value, {name: term.detach() for name, term in zip(names, terms, strict=True)})

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the two views of each image."""
        return view_panels(batch["x"], embed=self.embed if guess else None)
