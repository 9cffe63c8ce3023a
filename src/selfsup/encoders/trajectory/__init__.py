"""Encoders of observations: any image encoder, over all frames of an observation in its channels."""

from __future__ import annotations

from typing import Any

from selfsup.encoders.image import build as build_image
from selfsup.spec import TrajectorySpec


def build(name: str, spec: TrajectorySpec, pretrained: bool) -> Any:
    """Return an image encoder of the `stack` · `channels` channels of an observation."""
    encoder = build_image(name, spec.image, pretrained)
    encoder.spec = spec
    return encoder
