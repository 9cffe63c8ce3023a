"""Video encoders: any image encoder frame by frame, 3-D ResNets of torchvision, and a small transformer of tubelets."""

from __future__ import annotations

from typing import Any

from selfsup.encoders.image import build as build_image
from selfsup.errors import UserError
from selfsup.spec import ClipSpec

VOLUMES = ("r3d_18", "mc3_18", "r2plus1d_18")


def build(name: str, spec: ClipSpec, pretrained: bool) -> Any:
    """Return `vit-clip`, a 3-D ResNet (r3d_18, mc3_18, r2plus1d_18), or an image encoder that reads frame by frame."""
    from selfsup.encoders.video.framewise import Framewise
    from selfsup.encoders.video.vit_clip import ViTClip
    from selfsup.encoders.video.volume import Volume

    if name in VOLUMES or name == "vit-clip":
        if pretrained:
            raise UserError(f"{name} has no pretrained weights here")
        return ViTClip(spec) if name == "vit-clip" else Volume(name, spec)
    return Framewise(build_image(name, spec.image, pretrained), spec)
