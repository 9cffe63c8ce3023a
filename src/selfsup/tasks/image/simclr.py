"""SimCLR (Chen et al., 2020): two views of an image find each other among those of all others."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from selfsup.losses import nt_xent
from selfsup.nn.distributed import gather
from selfsup.nn.heads import mlp
from selfsup.nn.image.pairs import each_view, view_panels
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.image import ImageViews, preset


class SimCLR(Task):
    """Find the other view of an image among the 2B - 1 others (Chen et al., 2020, equation 1). Chance is ln(2B - 1).

    `layers` of the projector: 2 in the paper, 3 in SimCLR v2 (Chen et al., 2020b, section 2). `scale` is the least
    share of the image's area in a view: more where an image is one thing that fills it, as an icon is. Take it for
    photographs and a batch of at least 256; with small batches `moco` and `vicreg` need fewer negatives.

    Batch: `x` (B, 2, C, H, W) float. Published: ImageNet, ResNet-50, 1,000 epochs, linear, 69.1% (v2: 71.7%); CIFAR-10,
    ResNet-18, 1,000 epochs, 90.7%.

    Deviations: temperature and projector suit a batch of a few hundred (the paper: 0.1, hidden 2048, batch 4096; its
    appendix B.9 finds 0.5 best on CIFAR-10). Both views go through the encoder in one pass.
    """

    paper = "Chen et al., 2020"
    section = "images: contrastive"

    def __init__(
        self,
        encoder: Encoder,
        *,
        temperature: float = 0.2,
        layers: int = 2,
        hidden: int = 512,
        dim: int = 128,
        scale: float = 0.08,
    ) -> None:
        super().__init__(encoder)
        self.temperature, self.scale = temperature, scale
        self.projector = mlp(encoder.dim, *[hidden] * (layers - 1), dim)

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return two crops with the paper's changes of colour (appendix A)."""
        return ImageViews(spec, preset("simclr", spec.size, scale=self.scale))

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, dim)."""
        z: Tensor = self.projector(self.encoder(x))
        return z

    def loss(self, batch: Batch) -> Loss:
        """Return NT-Xent of the global batch."""
        z1, z2 = (gather(z) for z in each_view(self.embed, batch["x"]))
        return Loss(nt_xent(z1, z2, self.temperature), chance=math.log(2 * len(z1) - 1))

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the two views of each image."""
        return view_panels(batch["x"], embed=self.embed if guess else None)
