"""Denoising autoencoder (Vincent et al., 2008): reconstruct the clean image from a corrupted one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.errors import unknown
from selfsup.nn import noise
from selfsup.nn.constants import mean_std
from selfsup.nn.image.decoder import Decoder
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.image import Crop, ImageViews

CORRUPTIONS = ("masking", "gaussian", "salt_pepper", "mixed")


class Denoising(Task):
    """Reconstruct the clean image from a corrupted one's representation (Vincent et al., 2008; 2010, section 3.3).

    The loss is the mean squared error over all pixels. `explained` is the fraction of the images' variance that is
    explained: 0 for the mean image of the batch.

    Batch: `x` (B, C, H, W) float; `noise` (B,) int64, the key of the corruption.
    Published: MNIST with 10,000 labels, three layers, masking, fine-tuned: 2.80% error (SVM 3.03%; 2008, table 1).
    Deviations: a convolutional encoder and decoder trained jointly, not layer by layer with tied weights; corruption
    applies to whole pixels, not to single channels; squared error, where the paper has cross-entropy.

    Args:
        corruption: `masking` makes pixels black, `salt_pepper` black or white with equal probability, `gaussian` adds
            noise to all, and `mixed` draws one of the three for each image.
        corruption_ratio: Fraction of the pixels that `masking` and `salt_pepper` corrupt, in (0, 1).
        sigma: Std of the Gaussian noise, in units of the normalized values, in (0, inf).
        pad: Largest random shift of the image, in pixels, in [0, inf).
        flip: Probability of a horizontal flip, in [0, 1].
        decoder_dim: Channels of the decoder at full resolution, in [1, inf).
    """

    paper = "Vincent et al., 2008"
    section = "images: generative"
    coupled = False

    def __init__(
        self,
        encoder: Encoder,
        *,
        corruption: Literal["masking", "gaussian", "salt_pepper", "mixed"] = "masking",
        corruption_ratio: float = 0.25,
        sigma: float = 0.5,
        pad: int = 0,
        flip: float = 0.0,
        decoder_dim: int = 32,
    ) -> None:
        super().__init__(encoder)
        if corruption not in CORRUPTIONS:
            raise unknown("corruption", corruption, CORRUPTIONS)
        self.corruption, self.corruption_ratio, self.sigma = corruption, corruption_ratio, sigma
        self.pad, self.flip = pad, flip
        self.decoder = Decoder(encoder.dim, encoder.spec, width=decoder_dim)

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return images and the keys that their corruption is drawn from."""
        return ImageViews(spec, {"x": Crop(spec.size, pad=self.pad, flip=self.flip)}, noise=True)

    def corrupt(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return corrupted images (B, C, H, W), and the corruption of each (B,), an index into `CORRUPTIONS`."""
        x, key, spec = batch["x"], batch["noise"], self.encoder.spec
        if self.corruption == "mixed":
            chosen = noise.integers(key, 3, stream=2)
        else:
            chosen = torch.full_like(key, CORRUPTIONS.index(self.corruption))
        mean, std = mean_std(spec, x)
        drawn = noise.uniform(key, 1, *x.shape[2:])
        white = drawn < torch.where(chosen == 2, self.corruption_ratio / 2, 0.0).view(-1, 1, 1, 1)
        replaced = torch.where(drawn < self.corruption_ratio, torch.where(white, (1 - mean) / std, -mean / std), x)
        if self.corruption in ("masking", "salt_pepper"):
            return replaced, chosen
        noisy = x + self.sigma * noise.normal(key, *x.shape[1:], stream=1)
        return torch.where((chosen == 1).view(-1, 1, 1, 1), noisy, replaced), chosen

    def loss(self, batch: Batch) -> Loss:
        """Return the mean squared error to the clean image."""
        x = batch["x"]
        error = F.mse_loss(self.decoder(self.encoder(self.corrupt(batch)[0])), x)
        return Loss(error, {"explained": 1 - error.detach() / (x - x.mean(0)).square().mean().clamp_min(1e-6)})

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return each corrupted image, the clean target, and the reconstruction."""
        corrupted, chosen = self.corrupt(batch)
        names = [CORRUPTIONS[index].replace("_", " and ") for index in chosen.tolist()]
        rows = [
            [Panel(c, f"in: {name}"), Panel(x, "target")]
            for c, x, name in zip(corrupted, batch["x"], names, strict=True)
        ]
        if guess:
            guesses = self.decoder(self.encoder(corrupted))
            rows = [[*row, Panel(image, "reconstruction")] for row, image in zip(rows, guesses, strict=True)]
        return rows
