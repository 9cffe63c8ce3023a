"""Counting (Noroozi et al., 2017): what is in the tiles of an image is, added up, what is in the image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.losses import full, product
from selfsup.nn.distributed import gather
from selfsup.nn.heads import mlp
from selfsup.nn.image.patches import LEAST, encode, mosaic, resizer, side_for
from selfsup.nn.noise import integers
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.image import Crop, ImageViews

FILTERS = ("bilinear", "bicubic", "area", "nearest")


class Counting(Task):
    """Count so that the counts of the four tiles add up to that of the image at half its side (Noroozi et al., 2017).

    A head on the encoder counts `counts` things, none less than 0 (section 3.2): φ(Dx) = Σ φ(tile of x), in squared
    distance, while φ(Dy) of other images stays at least `margin` away from the sum (equation 4), for else nothing at
    all would be counted. `scale`: the least share of the image. Images of less than 16 pixels are enlarged.
    Encoders that take images of one size alone get tiles and halves enlarged. Chance is `margin`, the loss where
    nothing is counted.

    Counter-measures (section 3.3): `gray` is the share of images without colour, against chromatic aberration;
    `filters` draws the filter of the downsampling among bilinear, bicubic, area and nearest, so that no trace of one
    tells the halved image from the tiles; without it the filter is bilinear.

    Batch: `x` (B, C, H, W) float, `noise` (B,) int64. Published: ImageNet AlexNet, linear, conv1 to conv5:
    18.0/30.6/34.3/32.5/25.7.

    Deviations: the contrast is the mean over all other images of the global batch, not one drawn; that is independent
    of their order. The head has one hidden layer of `hidden` units, and its last layer starts at a tenth of the usual
    size, so that training starts near chance. The image is halved from its own size (228 to 114 pixels in the paper).
    """

    paper = "Noroozi et al., 2017"
    section = "images: patches"
    counters = {"aberration": {"gray": 0.5}, "residual": {"filters": True}}  # noqa: RUF012
    halving: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        counts: int = 1000,
        margin: float = 10.0,
        gray: float = 0.5,
        filters: bool = True,
        scale: float = 0.5,
        hidden: int = 512,
    ) -> None:
        super().__init__(encoder)
        self.margin, self.gray, self.scale = margin, gray, scale
        self.part = max(LEAST, encoder.spec.size // 2)
        self.side = side_for(encoder, self.part)
        matrices = [resizer(2 * self.part, self.part, mode) for mode in (FILTERS if filters else FILTERS[:1])]
        self.register_buffer("halving", torch.stack(matrices), persistent=False)
        head = mlp(encoder.dim, hidden, counts)
        with torch.no_grad():
            for parameter in head[-1].parameters():
                parameter.mul_(0.1)
        self.head = nn.Sequential(head, nn.ReLU())

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return squares cut at random, some of them gray."""
        crop = Crop(2 * self.part, scale=(self.scale, 1.0), ratio=(1.0, 1.0), flip=0.5, gray=self.gray)
        return ImageViews(spec, {"x": crop}, noise=True)

    def parts(self, batch: Batch) -> Tensor:
        """Return the halved image, then its four tiles (B, 5, C, h, w)."""
        x = batch["x"]
        a = self.halving[integers(batch["noise"], len(self.halving))][:, None]
        tiles = x.unfold(2, self.part, self.part).unfold(3, self.part, self.part).flatten(2, 3).transpose(1, 2)
        return torch.cat([product(product(a, x), a.mT)[:, None], tiles], 1)

    def counted(self, parts: Tensor) -> Tensor:
        """Return the counts of each part (B, 5, counts)."""
        found = full(self.head(encode(self.encoder, parts, self.side).flatten(0, 1)))
        return found.view(*parts.shape[:2], -1)

    def loss(self, batch: Batch) -> Loss:
        """Return equation 4, the contrast as its mean over all other images."""
        counts = gather(self.counted(self.parts(batch)))
        whole, total = counts[:, 0], counts[:, 1:].sum(1)
        same = (whole - total).square().sum(1).mean()
        apart = torch.cdist(total, whole, compute_mode="donot_use_mm_for_euclid_dist").square()
        other = ~torch.eye(len(apart), dtype=torch.bool, device=apart.device)
        contrast = F.relu(self.margin - apart)[other].mean()
        metrics = {"difference": same.detach(), "contrast": contrast.detach(), "counted": total.detach().sum(1).mean()}
        return Loss(same + contrast, metrics, self.margin)

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the image, its half and the tiles; with `guess` how much is counted in each, and the differences."""
        parts = self.parts(batch)
        captions = [["image", "half", "tiles"]] * len(parts)
        if guess:
            counts = self.counted(parts)
            whole, total = counts[:, 0], counts[:, 1:].sum(1)
            same = (whole - total).square().sum(1)
            other = (whole.roll(1, 0) - total).square().sum(1)
            captions = [
                [f"to own {a:.1f}, other {b:.1f}", f"half: {c:.1f}", f"tiles: {d:.1f}"]
                for a, b, c, d in zip(same, other, whole.sum(1), total.sum(1), strict=True)
            ]
        images = ((x, part[0], mosaic(part[1:], 2)) for x, part in zip(batch["x"], parts, strict=True))
        return [list(map(Panel, row, texts)) for row, texts in zip(images, captions, strict=True)]
