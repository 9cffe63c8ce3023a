"""SimCLR (Chen et al., 2020): tell the other view of the same image from the views of all other images."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from selfsup.base.distributed import gather
from selfsup.losses import nt_xent
from selfsup.nn.heads import each_view, mlp
from selfsup.nn.image.pairs import view_panels
from selfsup.spec import Spec
from selfsup.task import Batch, Encoder, Loss, Panel, Task, Views
from selfsup.views import preset_views


class SimCLR(Task):
    """Find the other view of an image among the 2B - 1 others (Chen et al., 2020, equation 1). Chance is ln(2B - 1).

    Suits photographs and batches of at least 256; with small batches prefer `moco` or `vicreg`. Both views go
    through the encoder in one pass.

    Batch: `x` (B, 2, C, H, W) float. Published: ImageNet, ResNet-50, 1,000 epochs, linear, 69.1% (v2: 71.7%); CIFAR-10,
    ResNet-18, 1,000 epochs, 90.7%.

    Deviations: temperature and projector suit a batch of a few hundred, not the paper's 4,096; crops suit small data.

    Args:
        temperature: Divides the cosine similarities; 0.1 in the paper, 0.5 on CIFAR-10 (appendix B.9), in (0, inf).
        num_layers: Layers of the projector; 2 in the paper, 3 in SimCLR v2 (Chen et al., 2020b), in [1, inf).
        hidden_dim: Width of the projector's hidden layers; 2048 in the paper, in [1, inf).
        out_dim: Dimension of the embedding that the loss compares, in [1, inf).
        min_scale: Minimum area of a crop as a fraction of the image; 0.08 in the paper, more where one object fills it,
            in (0, 1].
    """

    paper = "Chen et al., 2020"
    section = "images: contrastive"
    also = ("audio",)
    any_size = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        temperature: float = 0.2,
        num_layers: int = 2,
        hidden_dim: int = 512,
        out_dim: int = 128,
        min_scale: float = 0.2,
    ) -> None:
        super().__init__(encoder)
        self.temperature, self.min_scale = temperature, min_scale
        self.projector = mlp(encoder.dim, *[hidden_dim] * (num_layers - 1), out_dim)

    def views(self, spec: Spec) -> Views:
        """Return two crops with the paper's colour distortion (appendix A)."""
        return preset_views(spec, "simclr", self.min_scale)

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_dim)."""
        return self.projector(self.encoder(x))

    def loss(self, batch: Batch) -> Loss:
        """Return NT-Xent of the global batch."""
        z1, z2 = (gather(z) for z in each_view(self.embed, batch["x"]))
        return Loss(nt_xent(z1, z2, self.temperature), chance=math.log(2 * len(z1) - 1))

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the two views of each image."""
        return view_panels(batch["x"], embed=self.embed if guess else None)
