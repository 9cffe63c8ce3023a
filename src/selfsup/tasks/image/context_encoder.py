"""Context encoder (Pathak et al., 2016): fill a hole in an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.errors import unknown
from selfsup.nn import noise
from selfsup.nn.detached import detached
from selfsup.nn.image.decoder import Decoder
from selfsup.nn.image.discriminator import Discriminator
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.image import Crop, ImageViews

REGIONS = ("centre", "random")


class ContextEncoder(Task):
    """Fill a hole in an image from its surroundings (Pathak et al., 2016, section 3).

    The target is the central square of half the image's side, or a random region of any shape. The hole is the target
    region less a band along its border; it is filled with the mean colour. The band is visible to the encoder, and
    there the error weighs 10 times as much (section 4). The loss is (1 - `adversarial_weight`) · L2 +
    `adversarial_weight` · the generator's adversarial loss (equation 3). In the same step the discriminator, which sees
    regions without their context, is trained on detached images at a tenth of the learning rate; its parameters are
    constants in the generator's loss. A metric `discriminator` of 2 ln 2 = 1.386 means that it cannot distinguish real
    regions from generated ones; `explained` is the fraction of the region's variance that is explained.

    Batch: `x` (B, C, H, W) float; `noise` (B,) int64, the key of the region.
    Published: VOC classification, detection, segmentation 56.5 / 44.5 / 29.7.
    Deviations: the bottleneck is the representation itself, fully connected to a decoder of the whole image, from which
    the region is cropped; random regions are level sets of smooth noise, not outlines from PASCAL VOC; no
    normalization in the discriminator.

    Args:
        region: `centre` for the central square, `random` for a region whose hole is a quarter of the image.
        adversarial_weight: Weight of the adversarial loss, in [0, 1).
        overlap: Width of the visible band, as a fraction of the image's side, in [0, 0.25).
        pad: Largest random shift of the image, in pixels, in [0, inf).
        flip: Probability of a horizontal flip, in [0, 1].
        decoder_dim: Channels of the decoder at full resolution, and of the discriminator's first convolution,
            in [1, inf).
    """

    paper = "Pathak et al., 2016"
    section = "images: generative"
    coupled = False

    def __init__(
        self,
        encoder: Encoder,
        *,
        region: Literal["centre", "random"] = "centre",
        adversarial_weight: float = 0.001,
        overlap: float = 7 / 128,
        pad: int = 0,
        flip: float = 0.5,
        decoder_dim: int = 32,
    ) -> None:
        super().__init__(encoder)
        if region not in REGIONS:
            raise unknown("region", region, REGIONS)
        self.region, self.adversarial_weight, self.pad, self.flip = region, adversarial_weight, pad, flip
        self.overlap = round(overlap * encoder.spec.size)
        self.decoder = Decoder(encoder.dim, encoder.spec, width=decoder_dim)
        self.discriminator = Discriminator(encoder.spec, width=decoder_dim)

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return images and the keys that their regions are drawn from."""
        return ImageViews(spec, {"x": Crop(spec.size, pad=self.pad, flip=self.flip)}, noise=True)

    def lr_of(self, child: str, scheduled: float, peak: float) -> float:
        """Train the discriminator at a tenth of the learning rate (section 4)."""
        return scheduled / 10 if child == "discriminator" else scheduled

    def regions(self, key: Tensor) -> tuple[Tensor, Tensor]:
        """Return the target region and the hole within it, (B, 1, H, W) of 0 and 1."""
        size, reach = self.encoder.spec.size, 2 * self.overlap + 1
        if self.region == "centre":
            region = torch.zeros(len(key), 1, size, size, device=key.device)
            region[:, :, size // 4 : size - size // 4, size // 4 : size - size // 4] = 1
            return region, 1 - F.max_pool2d(1 - region, reach, stride=1, padding=self.overlap)
        smooth = F.interpolate(noise.normal(key, 1, 6, 6), (size, size), mode="bicubic")
        hole = (smooth > smooth.flatten(1).quantile(0.75, dim=1).view(-1, 1, 1, 1)).float()
        return F.max_pool2d(hole, reach, stride=1, padding=self.overlap), hole

    def loss(self, batch: Batch) -> Loss:
        """Return the sum of both players' losses, each with the other's parameters held constant."""
        x, (region, hole) = batch["x"], self.regions(batch["noise"])
        filled = self.decoder(self.encoder(x * (1 - hole)))
        area = region.sum((1, 2, 3)) * x.shape[1]
        squared = region * (filled - x).square()
        error = ((squared * (10 - 9 * hole)).sum((1, 2, 3)) / area).mean()
        fake, real = region * filled, region * x
        of_generator = F.softplus(-detached(self.discriminator, fake)).mean()
        of_discriminator = F.softplus(-self.discriminator(real)).mean()
        of_discriminator = of_discriminator + F.softplus(self.discriminator(fake.detach())).mean()
        variance = (region * (x - x.mean(0)).square()).sum((1, 2, 3)) / area
        explained = 1 - (squared.sum((1, 2, 3)) / area).mean().detach() / variance.mean().clamp_min(1e-6)
        weight = self.adversarial_weight
        value = (1 - weight) * error + weight * of_generator + of_discriminator
        metrics = {"error": error.detach(), "discriminator": of_discriminator.detach(), "explained": explained}
        return Loss(value, metrics)

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return each image with its hole, the target region, and the image with the hole filled."""
        x, (region, hole) = batch["x"], self.regions(batch["noise"])
        columns = [(x * (1 - hole), "in"), (region * x, "label: the region")]
        if guess:
            columns.append((x * (1 - hole) + hole * self.decoder(self.encoder(x * (1 - hole))), "filled"))
        return [[Panel(images[i], caption) for images, caption in columns] for i in range(len(x))]
