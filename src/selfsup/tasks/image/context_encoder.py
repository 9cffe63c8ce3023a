"""Context encoder (Pathak et al., 2016): fill a hole in an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.errors import UserError, unknown
from selfsup.nn import noise
from selfsup.nn.detached import detached
from selfsup.nn.image.decoder import Decoder
from selfsup.nn.image.discriminator import Discriminator
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.image import Crop, ImageViews

REGIONS = ("centre", "random")


class ContextEncoder(Task):
    """MaskDecoder a hole from what is around it (Pathak et al., 2016, section 3).

    What is asked for is the centre square of half the side, or a `random` region of any shape. The hole in it, filled
    with the mean colour, is `overlap` of the side narrower all around (a random one is a quarter of the image): in
    this band, which is seen, the error weighs 10 times (section 4). The loss is 0.999 · L2 + `adversarial` · that of a
    generator whose image of the region should be taken for real (eq. 3). In the same step the discriminator, which
    sees regions without their context, learns at a tenth of the rate, from detached images; the generator's loss sees
    its parameters as constants. `discriminator` at 1.386 is one that cannot tell; `explained` is the share of the
    variance in the region.

    Batch: `x` (B, C, H, W) float; `noise` (B,) int64, the key of the region.
    Published: VOC classification, detection, segmentation 56.5 / 44.5 / 29.7.

    Deviations: the bottleneck is the representation itself, fully connected to a decoder of the whole image, of which
    the region is cut out; random regions are level sets of smooth noise, not outlines from PASCAL VOC; no
    normalization in the discriminator.
    """

    paper = "Pathak et al., 2016"
    section = "images: generative"
    coupled = False

    def __init__(
        self,
        encoder: Encoder,
        *,
        region: Literal["centre", "random"] = "centre",
        adversarial: float = 0.001,
        overlap: float = 7 / 128,
        pad: int = 0,
        flip: float = 0.5,
        width: int = 32,
    ) -> None:
        super().__init__(encoder)
        if region not in REGIONS:
            raise unknown("region", region, REGIONS)
        if not 0 <= adversarial < 1 or not 0 <= overlap < 0.25:
            raise UserError(f"--adversarial lies in 0..1 and --overlap in 0..0.25, not {adversarial} and {overlap}")
        self.region, self.adversarial, self.pad, self.flip = region, adversarial, pad, flip
        self.overlap = round(overlap * encoder.spec.size)
        self.decoder = Decoder(encoder.dim, encoder.spec, width=width)
        self.discriminator = Discriminator(encoder.spec, width=width)

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return images and the keys of their regions."""
        return ImageViews(spec, {"x": Crop(spec.size, pad=self.pad, flip=self.flip)}, noise=True)

    def lr_of(self, child: str, scheduled: float, peak: float) -> float:
        """Let the discriminator learn at a tenth of the rate (section 4)."""
        return scheduled / 10 if child == "discriminator" else scheduled

    def regions(self, key: Tensor) -> tuple[Tensor, Tensor]:
        """Return the region that is asked for and the hole within it, (B, 1, H, W) of 0 and 1."""
        size, reach = self.encoder.spec.size, 2 * self.overlap + 1
        if self.region == "centre":
            region = torch.zeros(len(key), 1, size, size, device=key.device)
            region[:, :, size // 4 : size - size // 4, size // 4 : size - size // 4] = 1
            return region, 1 - F.max_pool2d(1 - region, reach, stride=1, padding=self.overlap)
        smooth = F.interpolate(noise.normal(key, 1, 6, 6), (size, size), mode="bicubic")
        hole = (smooth > smooth.flatten(1).quantile(0.75, dim=1).view(-1, 1, 1, 1)).float()
        return F.max_pool2d(hole, reach, stride=1, padding=self.overlap), hole

    def loss(self, batch: Batch) -> Loss:
        """Return the sum of both players' losses, each with the other's parameters constant."""
        x, (region, hole) = batch["x"], self.regions(batch["noise"])
        filled = self.decoder(self.encoder(x * (1 - hole)))
        area = region.sum((1, 2, 3)) * x.shape[1]
        squared = region * (filled - x).square()
        error = ((squared * (10 - 9 * hole)).sum((1, 2, 3)) / area).mean()
        fake, real = region * filled, region * x
        fooled = F.softplus(-detached(self.discriminator, fake)).mean()
        told = F.softplus(-self.discriminator(real)).mean() + F.softplus(self.discriminator(fake.detach())).mean()
        spread = (region * (x - x.mean(0)).square()).sum((1, 2, 3)) / area
        explained = 1 - (squared.sum((1, 2, 3)) / area).mean().detach() / spread.mean().clamp_min(1e-6)
        value = (1 - self.adversarial) * error + self.adversarial * fooled + told
        return Loss(value, {"error": error.detach(), "discriminator": told.detach(), "explained": explained})

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return each image with its hole, what was there, and with the region filled."""
        x, (region, hole) = batch["x"], self.regions(batch["noise"])
        columns = [(x * (1 - hole), "in"), (region * x, "label: the region")]
        if guess:
            columns.append((x * (1 - hole) + hole * self.decoder(self.encoder(x * (1 - hole))), "filled"))
        return [[Panel(images[i], caption) for images, caption in columns] for i in range(len(x))]
