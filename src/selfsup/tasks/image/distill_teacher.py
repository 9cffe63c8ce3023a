"""The teacher of `distill`: a frozen encoder, and what it makes of a student's images."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.encoders.weights import weights_digest
from selfsup.errors import UserError
from selfsup.nn.constants import mean_std
from selfsup.spec import ImageSpec

GREY = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R 601)


class Teacher:
    """A frozen encoder; it is not a module, so that it is in no state, no optimizer and no export.

    `dim` and `width` are the numbers of channels of its representation and of its places, 0 where it has none; `size`
    is the side in pixels at which it sees images.
    """

    def __init__(self, encoder: Any, name: str, size: int) -> None:
        self.encoder = encoder.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.name, self.size = name, size or encoder.spec.size
        self.spec: ImageSpec = encoder.spec
        try:
            with torch.no_grad():
                z, maps = represent(encoder, torch.zeros(2, self.spec.channels, self.size, self.size))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise UserError(
                f"the teacher {name} cannot take {self.size} pixels: give another --teacher-size"
            ) from error
        self.dim, self.width = z.shape[1], 0 if maps is None else maps.shape[1]

    def digest(self) -> str:
        """Return a hash of the weights."""
        return weights_digest(self.encoder)

    def describe(self) -> str:
        """Return its name, its size and the images that it sees."""
        count = sum(parameter.numel() for parameter in self.encoder.parameters())
        return f"{self.name}, {count:,} parameters, sees {self.size} × {self.size} pixels"

    @torch.no_grad()
    def __call__(self, x: Tensor, spec: ImageSpec, places: bool) -> tuple[Tensor, Tensor | None]:
        """Return the representation (B, dim) and, with `places`, the map (B, width, h, w) of a student's images.

        `x` (B, C, H, W) are normalized by the student's `spec`; the teacher gets them with its own mean and std, and in
        its own size.
        """
        weights = next(self.encoder.parameters())
        if weights.device != x.device:
            self.encoder.to(x.device)
        mean, std = mean_std(spec, x)
        pixels = (x * std + mean).to(weights.dtype)
        if spec.channels == 3 and self.spec.channels == 1:
            pixels = (pixels * pixels.new_tensor(GREY).view(-1, 1, 1)).sum(1, keepdim=True)
        elif spec.channels != self.spec.channels:
            pixels = pixels.expand(-1, self.spec.channels, -1, -1)
        if pixels.shape[-1] != self.size:
            pixels = F.interpolate(pixels, (self.size, self.size), mode="bilinear", antialias=True)
        mean, std = mean_std(self.spec, pixels)
        z, maps = represent(self.encoder, (pixels - mean) / std, places)
        return z.to(x.dtype), None if maps is None else maps.to(x.dtype)


def has_places(encoder: Any) -> bool:
    """Return whether `represent` gives a map of an encoder's images."""
    maps = hasattr(encoder, "with_maps") and getattr(encoder, "has_maps", True)
    return bool(getattr(encoder, "patch", 0)) or bool(maps)


def represent(encoder: Any, x: Tensor, places: bool = True) -> tuple[Tensor, Tensor | None]:
    """(B, C, H, W) -> the representation (B, dim) and a map of the places (B, C', h, w), None without or for no map.

    Of a transformer the map has its patch tokens, of a convolutional network it is that of the stage before the last.
    """
    if not (places and has_places(encoder)):
        return encoder(x), None
    if not getattr(encoder, "patch", 0):
        return encoder.with_maps(x)
    tokens = encoder.tokens(x)
    side = math.isqrt(tokens.shape[1] - encoder.prefix)
    return encoder.pool(tokens), tokens[:, encoder.prefix :].mT.unflatten(2, (side, side))
