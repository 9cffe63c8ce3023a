"""Encoders that see images of one size alone."""

from __future__ import annotations

from torch import Tensor

from selfsup.errors import UserError
from selfsup.spec import ImageSpec


def check_size(spec: ImageSpec, x: Tensor) -> None:
    """Refuse images (B, C, H, W) of another size than the encoder was made for."""
    if x.shape[-2:] != (spec.size, spec.size):
        raise UserError(
            f"this encoder sees images of {spec.size} pixels alone, and was shown {x.shape[-1]}: give --encoder "
            "convnet, resnet18 or vit"
        )
