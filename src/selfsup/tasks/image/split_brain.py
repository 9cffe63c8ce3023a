"""Split-brain autoencoder (Zhang et al., 2017): lightness predicts colour, colour predicts lightness."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.losses import full
from selfsup.nn.distributed import global_mean
from selfsup.nn.image.lab import AbBins, check_colour, coloured, from_lab, from_light, to_lab, to_light
from selfsup.nn.norm import BatchNormMaps
from selfsup.source import Source
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.tasks.image.colorization_data import ab_samples
from selfsup.tasks.image.split_brain_encoder import SplitEncoder
from selfsup.views.image import Crop, ImageViews

LEVELS = 50  # bins of L, of 2 each


class SplitBrain(Task):
    """Predict colour from lightness, and lightness from colour, with two halves (Zhang et al., 2017, section 3).

    The encoder is cut into halves that share nothing: the first half of the channels of each layer sees L and predicts
    a and b as classes over the 261 bins of the ab plane, softly as in `colorization`; the second half sees a and b and
    predicts L as one of 50 bins of 2. Both at a quarter of the resolution. The representation is both halves'
    features beside each other, of ordinary images. Neither half can copy its input, which a plain autoencoder of Lab
    does (its conv5 is worse than random, 11.5 against 14.1). Images without colour are left out; `grey` is their
    share. Chance is ln 261 + ln 50.

    Batch: `x` (B, 3, H, W) float. Published: VOC classification, detection, segmentation 67.1 / 46.7 / 36.0.

    Deviations: 261 bins, not 313 (see `selfsup.nn.image.lab.ab_bins`); the heads are two convolutions on the last maps.
    """

    paper = "Zhang et al., 2017"
    section = "images: colorization"

    def __init__(self, encoder: Encoder, *, pad: int = 4, flip: float = 0.5, hidden: int = 64) -> None:
        check_colour("split_brain", encoder.spec)
        super().__init__(SplitEncoder(encoder))
        self.pad, self.flip, self.side = pad, flip, math.ceil(encoder.spec.size / 4)
        self.bins = AbBins()
        with torch.no_grad():
            size = encoder.spec.size
            channels = self.encoder.eval().maps(torch.zeros(1, 3, size, size)).shape[1] // 2
            self.encoder.train()
        self.to_ab, self.to_l = head(channels, hidden, len(self.bins.centres)), head(channels, hidden, LEVELS)

    def samples(self, source: Source) -> Source:
        """Refuse images that are all grey."""
        ab_samples(source, self.encoder.spec, self.side, 256)
        return source

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return shifted, flipped images."""
        return ImageViews(spec, {"x": Crop(spec.size, pad=self.pad, flip=self.flip)})

    def predict(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of ab (B, Q, side, side) and of L (B, 50, side, side)."""
        maps = F.interpolate(self.encoder.maps(x), (self.side, self.side), mode="bilinear")
        light, colour = maps.chunk(2, 1)
        return self.to_ab(light), self.to_l(colour)

    def target(self, x: Tensor) -> Tensor:
        """Return L, a and b (B, 3, side, side)."""
        return to_lab(F.adaptive_avg_pool2d(to_light(x, self.encoder.spec), self.side))

    def loss(self, batch: Batch) -> Loss:
        """Return the sum of both cross-entropies."""
        ab_logits, l_logits = self.predict(batch["x"])
        lab = self.target(batch["x"])
        there = coloured(lab[:, 1:])
        level = (lab[:, 0] / (100 / LEVELS)).long().clamp(0, LEVELS - 1)
        to_ab = self.bins(ab_logits, self.bins.places(lab[:, 1:])).mean((1, 2))
        to_l = F.cross_entropy(full(l_logits), level, reduction="none").mean((1, 2))
        ab_loss, l_loss = global_mean(to_ab, there), global_mean(to_l, there)
        metrics = {"ab": ab_loss.detach(), "lightness": l_loss.detach(), "grey": 1 - there.mean()}
        return Loss(ab_loss + l_loss, metrics, math.log(len(self.bins.centres)) + math.log(LEVELS))

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return what each half sees of an image; with a trained run what it makes of that."""
        x, spec = batch["x"], self.encoder.spec
        lab = to_lab(to_light(x, spec))
        light, colour = lab[:, :1], lab[:, 1:]
        columns = [
            (torch.cat([light, torch.zeros_like(colour)], 1), "half 1 sees L"),
            (torch.cat([torch.full_like(light, 60), colour], 1), "half 2 sees ab"),
        ]
        if guess:
            ab_logits, l_logits = self.predict(x)
            middle = torch.arange(LEVELS, device=x.device).add(0.5) * (100 / LEVELS)
            shades = torch.einsum("bqhw,q->bhw", l_logits.float().softmax(1), middle)[:, None]
            grown = [
                F.interpolate(v, x.shape[2:], mode="bilinear") for v in (self.bins.annealed_mean(ab_logits), shades)
            ]
            columns += [
                (torch.cat([light, grown[0]], 1), "ab guessed"),
                (torch.cat([grown[1], colour], 1), "L guessed"),
            ]
        images = [(from_light(from_lab(values), spec), caption) for values, caption in columns]
        return [[Panel(x[i], "image"), *(Panel(p[i], caption) for p, caption in images)] for i in range(len(x))]


def head(channels: int, hidden: int, classes: int) -> nn.Sequential:
    """Return a 3 × 3 convolution and a classifier of each place."""
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 3, padding=1, bias=False),
        BatchNormMaps(hidden),
        nn.ReLU(inplace=True),
        nn.Conv2d(hidden, classes, 1),
    )
