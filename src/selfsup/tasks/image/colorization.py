"""Colorization (Zhang et al., 2016): predict the colours of a greyscale image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.base.distributed import global_mean
from selfsup.nn.image import lab
from selfsup.nn.image.dense import patch_features, patch_shape
from selfsup.nn.image.lightness import Lightness
from selfsup.nn.norm import BatchNormMaps
from selfsup.source import Source
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.tasks.image.colorization_data import ab_samples
from selfsup.views.image import Crop, ImageViews


class Colorization(Task):
    """Predict the colours of a greyscale image, as classes (Zhang et al., 2016, section 2).

    The encoder sees only the lightness L. A head predicts, at a quarter of the resolution, a distribution over the 261
    bins of the ab plane that sRGB reaches, against soft labels. Each pixel is weighted by the rarity of the bin q of
    its colour, 1 / ((1 - `prior_mix`) · p(q) + `prior_mix` / 261), where p is measured on the data and smoothed, and
    the weights have mean 1 (section 2.2). Images without colour are ignored; the metric `grey` is the fraction of
    them. Panels show the annealed mean, T = 0.38. Chance is ln 261.

    The representation sees lightness alone too, as the paper's (section 3.2): `evaluate` holds it against an untrained
    encoder that sees colours, and against one that does not.

    Batch: `x` (B, 3, H, W) float.
    Published: VOC classification, detection, segmentation 65.9 / 46.9 / 35.6.

    Deviations: L is given as a grey RGB image of this lightness, so that any encoder can be trained; the head is two
    convolutions on the last feature maps or tokens, where the paper's network is dilated throughout; 261 bins, not 313
    (see `selfsup.nn.image.lab.ab_bins`).

    Args:
        num_neighbors: Nearest bins among which the soft label of a colour is divided, in [1, 261].
        sigma: Std, in units of ab, of the Gaussian that weights these bins by distance, in (0, inf).
        prior_mix: Weight λ of the uniform distribution in the class rebalancing; 1 means no rebalancing, in (0, 1].
        pad: Largest random shift of the image, in pixels, in [0, inf).
        flip: Probability of a horizontal flip, in [0, 1].
        hidden_dim: Channels between the two convolutions of the head, in [1, inf).
    """

    paper = "Zhang et al., 2016"
    section = "images: colorization"
    weight: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        num_neighbors: int = 10,
        sigma: float = 5.0,
        prior_mix: float = 0.5,
        pad: int = 4,
        flip: float = 0.5,
        hidden_dim: int = 64,
    ) -> None:
        super().__init__(encoder)
        lab.check_colour("colorization", encoder.spec)
        self.prior_mix, self.pad, self.flip = prior_mix, pad, flip
        self.side, shape = math.ceil(encoder.spec.size / 4), patch_shape(encoder)
        self.bins = lab.AbBins(num_neighbors, sigma)
        self.register_buffer("weight", torch.ones(len(self.bins.centres)))
        self.before = nn.Sequential(
            nn.Conv2d(shape[0], hidden_dim, 3, padding=1, bias=False), BatchNormMaps(hidden_dim), nn.ReLU(inplace=True)
        )
        self.head = nn.Conv2d(hidden_dim, len(self.bins.centres), 1)

    def samples(self, source: Source) -> Source:
        """Measure the frequency of each colour on up to 1,024 images."""
        ab = ab_samples(source, self.encoder.spec, self.side)
        self.weight.copy_(self.bins.rarity(self.bins.places(ab.to(self.weight.device)), self.prior_mix))
        return source

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return images, randomly shifted and flipped."""
        return ImageViews(spec, {"x": Crop(spec.size, pad=self.pad, flip=self.flip)})

    def predict(self, grey: Tensor) -> Tensor:
        """(B, 3, H, W) -> logits (B, Q, side, side)."""
        features = self.before(patch_features(self.encoder, grey))
        return self.head(F.interpolate(features, (self.side, self.side), mode="bilinear"))

    def loss(self, batch: Batch) -> Loss:
        """Return the rebalanced cross-entropy of the colours."""
        light = lab.to_light(batch["x"], self.encoder.spec)
        ab = lab.ab_at(light, self.side)
        places, coloured = self.bins.places(ab), lab.coloured(ab)
        entropy = self.bins(self.predict(lab.grey(light, self.encoder.spec)), places)
        values = (entropy * self.weight[self.bins.near[:, 0]][places]).mean((1, 2))
        return Loss(global_mean(values, coloured), {"grey": 1 - coloured.mean()}, math.log(len(self.weight)))

    def representation(self) -> Encoder:
        """Return the encoder of an image's lightness."""
        return Lightness(self.encoder)

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return each image in greyscale, with the colours of the label, and with the predicted colours."""
        spec = self.encoder.spec
        light = lab.to_light(batch["x"], spec)
        grey, ab = lab.grey(light, spec), lab.ab_at(light, self.side)
        columns = [(grey, "in: lightness"), (lab.painted(light, ab, spec), "label")]
        if guess:
            ab = self.bins.annealed_mean(self.predict(grey))
            columns.append((lab.painted(light, ab, spec), "guess"))
        return [[Panel(images[i], caption) for images, caption in columns] for i in range(len(light))]
