"""Patch features: what an image encoder says of each place, as a map, whatever its architecture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from selfsup.errors import UserError


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


@torch.no_grad()
def patch_shape(encoder: Any) -> torch.Size:
    """Return the shape (D, h, w) of `patch_features`, without changing the encoder's mode or buffers."""
    training, weight = encoder.training, next(encoder.parameters())
    spec = encoder.spec
    shape = patch_features(encoder.eval(), weight.new_zeros(1, spec.channels, spec.size, spec.size)).shape[1:]
    encoder.train(training)
    return shape
