"""Split-brain autoencoder (Zhang et al., 2017): lightness predicts colour, colour predicts lightness."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.base.distributed import global_mean
from selfsup.losses import full
from selfsup.nn.image.lab import AbBins, check_colour, coloured, from_lab, from_light, to_lab, to_light
from selfsup.nn.norm import BatchNormMaps
from selfsup.source import Source
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.tasks.image.colorization_data import ab_samples
from selfsup.tasks.image.split_brain_encoder import SplitEncoder
from selfsup.views.image import Crop, ImageViews

LEVELS = 50  # bins of L, each 2 wide


class SplitBrain(Task):
    """Predict colour from lightness and lightness from colour with a split encoder (Zhang et al., 2017, section 3).

    The encoder is split into halves that share nothing. The first half of the channels of each layer sees L and
    predicts a and b as a soft class over the 261 bins of the ab plane, as in `colorization`; the second half sees a and
    b and predicts L as one of 50 bins. Both predict at a quarter of the resolution. The representation concatenates
    the features of both halves, from ordinary images. Neither half can copy its input, as a plain autoencoder of Lab
    does (its conv5 is worse than random: 11.5 against 14.1). Images without colour are left out; `grey` is their
    fraction. Chance is ln 261 + ln 50.

    Batch: `x` (B, 3, H, W) float. Published: VOC classification, detection, segmentation 67.1 / 46.7 / 36.0.

    Deviations: 261 bins, not 313 (see `selfsup.nn.image.lab.ab_bins`); the heads are two convolutions on the last maps.

    Args:
        pad: Largest shift of the image in pixels, over black, in [0, inf).
        flip: Probability of mirroring the image, in [0, 1].
        hidden_dim: Channels between the two convolutions of each head, in [1, inf).
    """

    paper = "Zhang et al., 2017"
    section = "images: colorization"

    def __init__(self, encoder: Encoder, *, pad: int = 4, flip: float = 0.5, hidden_dim: int = 64) -> None:
        check_colour("split_brain", encoder.spec)
        super().__init__(SplitEncoder(encoder))
        self.pad, self.flip, self.side = pad, flip, math.ceil(encoder.spec.size / 4)
        self.bins = AbBins()
        with torch.no_grad():
            size = encoder.spec.size
            channels = self.encoder.eval().maps(torch.zeros(1, 3, size, size)).shape[1] // 2
            self.encoder.train()
        self.to_ab, self.to_l = head(channels, hidden_dim, len(self.bins.centres)), head(channels, hidden_dim, LEVELS)

    def samples(self, source: Source) -> Source:
        """Raise `UserError` if all images are grey."""
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
        has_colour = coloured(lab[:, 1:])
        level = (lab[:, 0] / (100 / LEVELS)).long().clamp(0, LEVELS - 1)
        to_ab = self.bins(ab_logits, self.bins.places(lab[:, 1:])).mean((1, 2))
        to_l = F.cross_entropy(full(l_logits), level, reduction="none").mean((1, 2))
        ab_loss, l_loss = global_mean(to_ab, has_colour), global_mean(to_l, has_colour)
        metrics = {"ab": ab_loss.detach(), "lightness": l_loss.detach(), "grey": 1 - has_colour.mean()}
        return Loss(ab_loss + l_loss, metrics, math.log(len(self.bins.centres)) + math.log(LEVELS))

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return what each half sees of an image, and with `guess` what it predicts from that."""
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
            large = [
                F.interpolate(v, x.shape[2:], mode="bilinear") for v in (self.bins.annealed_mean(ab_logits), shades)
            ]
            columns += [
                (torch.cat([light, large[0]], 1), "ab predicted"),
                (torch.cat([large[1], colour], 1), "L predicted"),
            ]
        images = [(from_light(from_lab(values), spec), caption) for values, caption in columns]
        return [[Panel(x[i], "image"), *(Panel(p[i], caption) for p, caption in images)] for i in range(len(x))]


def head(channels: int, hidden_dim: int, num_classes: int) -> nn.Sequential:
    """Return a 3 × 3 convolution and a classifier of each position."""
    return nn.Sequential(
        nn.Conv2d(channels, hidden_dim, 3, padding=1, bias=False),
        BatchNormMaps(hidden_dim),
        nn.ReLU(inplace=True),
        nn.Conv2d(hidden_dim, num_classes, 1),
    )
