"""Counting (Noroozi et al., 2017): the features counted in an image's tiles add up to those of the whole image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.base.distributed import gather
from selfsup.losses import full, product
from selfsup.nn.heads import mlp
from selfsup.nn.image.patches import LEAST, encode, mosaic, resizer, side_for
from selfsup.nn.noise import integers
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.image import Crop, ImageViews

FILTERS = ("bilinear", "bicubic", "area", "lanczos")


class Counting(Task):
    """Count so that the counts of the four tiles add up to that of the image at half its side (Noroozi et al., 2017).

    A head on the encoder makes a vector φ of non-negative counts (section 3.2). The loss is the squared distance
    between φ(Dx) and Σ φ(tile of x), where D halves the image; φ(Dy) of other images is pushed at least `margin` away
    from that sum (equation 4), because otherwise counting nothing would solve the task. Images of less than 16 pixels
    are enlarged, and so are tiles for encoders of a fixed input size. Chance is the loss if all counts are 0: `margin`,
    or 0 with a single image, which has no others.

    Counter-measures (section 3.3): `gray` against chromatic aberration; `random_filter` against the trace that a
    downsampling filter leaves, by which the halved image could be told from the tiles.

    Batch: `x` (B, C, H, W) float, `noise` (B,) int64.
    Published: ImageNet AlexNet, linear, conv1 to conv5: 18.0/30.6/34.3/32.5/25.7.
    Deviations: the contrast is the mean over all other images of the global batch, which does not depend on their
    order, not over one random image. The head has one hidden layer, and its last layer is initialized at a tenth of
    the usual scale, so that training starts near chance. All filters but area are antialiased. Images keep the spec's
    size (the paper: 228, halved to 114).

    Args:
        out_dim: Number of features that are counted, in [1, inf).
        margin: Minimum squared distance to the counts of another image, in (0, inf).
        gray: Fraction of the images that are made greyscale, in [0, 1].
        random_filter: Downsample each image with bilinear, bicubic, area or Lanczos interpolation at random; if not,
            bilinear.
        min_scale: Minimum fraction of the image's area in the crop, in (0, 1].
        hidden_dim: Width of the hidden layer of the head, in [1, inf).
    """

    paper = "Noroozi et al., 2017"
    section = "images: patches"
    counters = {"aberration": {"gray": 0.5}, "residual": {"random_filter": True}}  # noqa: RUF012
    halving: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        out_dim: int = 1000,
        margin: float = 10.0,
        gray: float = 0.5,
        random_filter: bool = True,
        min_scale: float = 0.5,
        hidden_dim: int = 512,
    ) -> None:
        super().__init__(encoder)
        self.margin, self.gray, self.min_scale = margin, gray, min_scale
        self.part = max(LEAST, encoder.spec.size // 2)
        self.side = side_for(encoder, self.part)
        modes = FILTERS if random_filter else FILTERS[:1]
        matrices = [resizer(2 * self.part, self.part, mode) for mode in modes]
        self.register_buffer("halving", torch.stack(matrices), persistent=False)
        head = mlp(encoder.dim, hidden_dim, out_dim)
        with torch.no_grad():
            for parameter in head[-1].parameters():
                parameter.mul_(0.1)
        self.head = nn.Sequential(head, nn.ReLU())

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return random square crops, some of them greyscale."""
        crop = Crop(2 * self.part, scale=(self.min_scale, 1.0), ratio=(1.0, 1.0), flip=0.5, gray=self.gray)
        return ImageViews(spec, {"x": crop}, noise=True)

    def parts(self, batch: Batch) -> Tensor:
        """Return the halved image, then its four tiles (B, 5, C, h, w)."""
        x = batch["x"]
        a = self.halving[integers(batch["noise"], len(self.halving))][:, None]
        tiles = x.unfold(2, self.part, self.part).unfold(3, self.part, self.part).flatten(2, 3).transpose(1, 2)
        return torch.cat([product(product(a, x), a.mT)[:, None], tiles], 1)

    def counted(self, parts: Tensor) -> Tensor:
        """Return the counts of each part (B, 5, out_dim)."""
        counts = full(self.head(encode(self.encoder, parts, self.side).flatten(0, 1)))
        return counts.view(*parts.shape[:2], -1)

    def loss(self, batch: Batch) -> Loss:
        """Return equation 4, with the contrast averaged over all other images."""
        counts = gather(self.counted(self.parts(batch)))
        whole, total = counts[:, 0], counts[:, 1:].sum(1)
        same = (whole - total).square().sum(1).mean()
        apart = torch.cdist(total, whole, compute_mode="donot_use_mm_for_euclid_dist").square()
        other = ~torch.eye(len(apart), dtype=torch.bool, device=apart.device)
        contrast = F.relu(self.margin - apart)[other].sum() / other.sum().clamp_min(1)
        metrics = {"difference": same.detach(), "contrast": contrast.detach(), "counted": total.detach().sum(1).mean()}
        return Loss(same + contrast, metrics, self.margin if len(apart) > 1 else 0.0)

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the image, its half and the tiles; with `guess` the total counts in each, and their distances."""
        parts = self.parts(batch)
        captions = [["image", "half", "tiles"]] * len(parts)
        if guess:
            counts = self.counted(parts)
            whole, total = counts[:, 0], counts[:, 1:].sum(1)
            same = (whole - total).square().sum(1)
            other = (whole.roll(1, 0) - total).square().sum(1)
            captions = [
                [f"distance: own {a:.1f}, other {b:.1f}", f"half: {c:.1f}", f"tiles: {d:.1f}"]
                for a, b, c, d in zip(same, other, whole.sum(1), total.sum(1), strict=True)
            ]
        images = ((x, part[0], mosaic(part[1:], 2)) for x, part in zip(batch["x"], parts, strict=True))
        return [list(map(Panel, row, texts)) for row, texts in zip(images, captions, strict=True)]
