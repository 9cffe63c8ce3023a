"""Encoders of observations: any image encoder, over all frames of an observation in its channels or one by one."""

from __future__ import annotations

from typing import Any

from selfsup.encoders.image import build as build_image
from selfsup.encoders.trajectory.frames import FrameByFrame
from selfsup.spec import TrajectorySpec

FRAMES = "frames:"


def build(name: str, spec: TrajectorySpec, pretrained: bool) -> Any:
    """Return an image encoder of the `stack` · `channels` channels of an observation; with `frames:NAME` of a frame."""
    if name.startswith(FRAMES):
        return FrameByFrame(build_image(name.removeprefix(FRAMES), spec.frame, pretrained), spec)
    encoder = build_image(name, spec.image, pretrained)
    encoder.spec = spec
    return encoder
