"""Encoders by name: the reference `convnet`, and every image model of timm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfsup.errors import UserError, unknown

if TYPE_CHECKING:
    from selfsup.data import ImageSpec
    from selfsup.encoders.convnet import ConvNet
    from selfsup.encoders.timm_model import TimmModel


def build_encoder(name: str, spec: ImageSpec, pretrained: bool = False) -> ConvNet | TimmModel:
    """Return a fresh encoder (see `selfsup.task.Encoder`) for pictures of this spec.

    `name`: `convnet`, or any image model of timm. Raises `UserError` for an unknown name (the nearest is suggested) and
    for a model that cannot take pictures of this size.
    """
    if name == "convnet":
        from selfsup.encoders.convnet import ConvNet

        if pretrained:
            raise UserError("convnet has no pretrained weights")
        return ConvNet(spec)
    import timm

    if not timm.is_model(name.split(".")[0]):
        raise unknown("encoder", name, ["convnet", *timm.list_models()])
    from selfsup.encoders.timm_model import TimmModel

    return TimmModel(name, spec, pretrained)
