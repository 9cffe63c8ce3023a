"""Image encoders: two small ones of our own, small vision transformers, and every image model of timm."""

from __future__ import annotations

from typing import Any

from selfsup.errors import UserError, unknown
from selfsup.spec import ImageSpec


def build(name: str, spec: ImageSpec, pretrained: bool) -> Any:
    """Return `convnet`, `mlp`, `vit`, `vit-mini`, or any image model of timm."""
    if name in ("convnet", "mlp"):
        from selfsup.encoders.image.convnet import ConvNet
        from selfsup.encoders.image.mlp import Mlp

        if pretrained:
            raise UserError(f"{name} has no pretrained weights")
        return ConvNet(spec) if name == "convnet" else Mlp(spec)
    import timm

    from selfsup.encoders.image.timm_model import VITS, TimmModel, small_vit

    if name in VITS:
        if pretrained:
            raise UserError(f"{name} has no pretrained weights")
        return small_vit(name, spec)
    if not timm.is_model(name.split(".")[0]):
        raise unknown("encoder", name, ["convnet", "mlp", *VITS, *timm.list_models()])
    return TimmModel(name, spec, pretrained)
