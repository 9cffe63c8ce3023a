"""Spatial features: the input of a dense head."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from selfsup.errors import UserError


def by_place(encoder: Any, x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, D, h, w): a convolutional encoder's feature maps, or a transformer's patch tokens as a grid.

    Raises `UserError` if the tokens do not form a square.
    """
    if not getattr(encoder, "has_tokens", False):
        return encoder.maps(x)
    tokens: Tensor = encoder.tokens(x)[:, encoder.prefix :]
    side = math.isqrt(tokens.shape[1])
    if side**2 != tokens.shape[1]:
        raise UserError(
            f"{tokens.shape[1]} tokens do not form a square: use a convolutional encoder, for example resnet18"
        )
    return tokens.transpose(1, 2).reshape(len(x), -1, side, side)


@torch.no_grad()
def shape_by_place(encoder: Any) -> torch.Size:
    """Return the shape (D, h, w) of `by_place`, without changing the encoder's mode or buffers."""
    training, weight = encoder.training, next(encoder.parameters())
    spec = encoder.spec
    shape = by_place(encoder.eval(), weight.new_zeros(1, spec.channels, spec.size, spec.size)).shape[1:]
    encoder.train(training)
    return shape
