"""An encoder of colour images that sees their lightness alone."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from selfsup.nn.image import lab
from selfsup.nn.image.dense import patch_features


class Lightness(nn.Module):
    """(B, 3, H, W) -> (B, dim): an encoder's representation of images without their colours.

    It is for encoders that were trained on grey images. Gradients of those do not tell the colours of the first layer's
    weights apart, so that the differences between them stay random, and add noise to the features of colour images.
    """

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder, self.spec, self.dim = encoder, encoder.spec, encoder.dim

    def seen(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, H, W): grey images of the same lightness."""
        return lab.grey(lab.to_light(x, self.spec), self.spec)

    def maps(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D, h, w): the patch features."""
        return patch_features(self.encoder, self.seen(x))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, dim)."""
        features: Tensor = self.encoder(self.seen(x))
        return features
