"""Patch features: what an image encoder says of each place, as a map, whatever its architecture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from selfsup.errors import UserError
from selfsup.nn.modes import tried_out


def has_patch_features(encoder: Any) -> bool:
    """Return whether `patch_features` can be taken of an encoder."""
    return bool(getattr(encoder, "has_maps", hasattr(encoder, "maps")) or getattr(encoder, "has_patches", False))


def patch_features(encoder: Any, x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, D, h, w): what an encoder says of each place of an image.

    The last maps of a convolutional encoder; of a transformer the patch tokens after its last normalization, in their
    grid, without class and register tokens. Raises `UserError` for an encoder that has neither.
    """
    if not has_patch_features(encoder):
        raise UserError(
            "this encoder has no patch features, only one vector an image: use a convolutional encoder or a "
            "transformer, for example convnet, resnet18 or vit"
        )
    found: Tensor = encoder.patch_maps(x) if getattr(encoder, "has_patches", False) else encoder.maps(x)
    return found


class PatchFeatures(nn.Module):
    """An encoder by its patch features: (B, C, H, W) -> (B, D, h, w)."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        """Return patch features."""
        return patch_features(self.encoder, x)


def patch_shape(encoder: Any) -> torch.Size:
    """Return the shape (D, h, w) of `patch_features`, without changing the encoder's mode or buffers."""
    weight, spec = next(encoder.parameters()), encoder.spec
    with tried_out(encoder):
        return patch_features(encoder, weight.new_zeros(1, spec.channels, spec.size, spec.size)).shape[1:]
