"""Colorization (Zhang et al., 2016): predict the colours of a grey image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.errors import UserError
from selfsup.nn.distributed import global_mean
from selfsup.nn.image import lab
from selfsup.nn.norm import BatchNormMaps
from selfsup.source import Source
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.tasks.image.colorization_data import ab_samples
from selfsup.tasks.image.colorization_maps import by_place, shape_by_place
from selfsup.views.image import Crop, ImageViews


class Colorization(Task):
    """Predict the colours of a grey image, as classes (Zhang et al., 2016, section 2).

    The encoder sees the lightness L alone. At a quarter of the resolution each place gets a distribution over the 261
    bins of the ab plane that sRGB reaches; the target is soft (the `neighbours` nearest bins, Gaussian, `sigma`). A
    place weighs 1 / ((1 - `mix`) · p + `mix` / 261) of the bin of its colour, with p measured on the data and smoothed,
    and a mean weight of 1 (section 2.2). Images without colour are left out; `grey` is their share. Images of
    results take the annealed mean, T = 0.38. Chance is ln 261.

    Batch: `x` (B, 3, H, W) float. Published: VOC classification, detection, segmentation 65.9 / 46.9 / 35.6.

    Deviations: L is given as the grey image of this lightness in the encoder's three channels, so that the encoder
    takes ordinary images, and those too whose colours it then sees; the head is two convolutions on the last maps or
    tokens, where the paper's network is dilated throughout; 261 bins, not 313 (see `selfsup.nn.image.lab.ab_bins`).
    """

    paper = "Zhang et al., 2016"
    section = "images: colorization"
    weight: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        neighbours: int = 10,
        sigma: float = 5.0,
        mix: float = 0.5,
        pad: int = 4,
        flip: float = 0.5,
        hidden: int = 64,
    ) -> None:
        super().__init__(encoder)
        lab.check_colour("colorization", encoder.spec)
        if not 0 < mix <= 1 or neighbours < 1 or sigma <= 0:
            raise UserError(
                f"--mix lies in 0..1 without 0, --neighbours and --sigma are positive, not {mix}, {neighbours}, {sigma}"
            )
        self.mix, self.pad, self.flip = mix, pad, flip
        self.side, shape = math.ceil(encoder.spec.size / 4), shape_by_place(encoder)
        self.bins = lab.AbBins(neighbours, sigma)
        self.register_buffer("weight", torch.ones(len(self.bins.centres)))
        self.before = nn.Sequential(
            nn.Conv2d(shape[0], hidden, 3, padding=1, bias=False), BatchNormMaps(hidden), nn.ReLU(inplace=True)
        )
        self.head = nn.Conv2d(hidden, len(self.bins.centres), 1)

    def samples(self, source: Source) -> Source:
        """Measure how often each colour occurs, on up to 1,024 images."""
        ab = ab_samples(source, self.encoder.spec, self.side)
        self.weight.copy_(self.bins.rarity(self.bins.places(ab.to(self.weight.device)), self.mix))
        return source

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return shifted, flipped images."""
        return ImageViews(spec, {"x": Crop(spec.size, pad=self.pad, flip=self.flip)})

    def predict(self, grey: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, Q, side, side)."""
        features = self.before(by_place(self.encoder, grey))
        logits: Tensor = self.head(F.interpolate(features, (self.side, self.side), mode="bilinear"))
        return logits

    def loss(self, batch: Batch) -> Loss:
        """Return the weighted cross-entropy of the colours."""
        light = lab.to_light(batch["x"], self.encoder.spec)
        ab = lab.ab_at(light, self.side)
        places, there = self.bins.places(ab), lab.coloured(ab)
        entropy = self.bins(self.predict(self.grey(light)), places)
        values = (entropy * self.weight[self.bins.near[:, 0]][places]).mean((1, 2))
        return Loss(global_mean(values, there), {"grey": 1 - there.mean()}, math.log(len(self.weight)))

    def grey(self, light: Tensor) -> Tensor:
        """Return the grey images of the same lightness (B, 3, H, W), as the encoder gets them."""
        return lab.from_light(lab.luminance(light), self.encoder.spec)

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return each image without its colours, and with those of the label and of the guess."""
        light = lab.to_light(batch["x"], self.encoder.spec)
        grey, ab = self.grey(light), lab.ab_at(light, self.side)
        columns = [(grey, "in: lightness"), (self.paint(light, ab), "label")]
        if guess:
            columns.append((self.paint(light, self.bins.annealed_mean(self.predict(grey))), "guess"))
        return [[Panel(images[i], caption) for images, caption in columns] for i in range(len(light))]

    def paint(self, light: Tensor, ab: Tensor) -> Tensor:
        """Return images of the lightness of `light` and the colours (B, 2, side, side), normalized."""
        size = self.encoder.spec.size
        both = torch.cat([lab.to_lab(light)[:, :1], F.interpolate(ab, (size, size), mode="bilinear")], 1)
        return lab.from_light(lab.from_lab(both), self.encoder.spec)
