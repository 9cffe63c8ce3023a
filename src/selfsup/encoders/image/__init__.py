"""Image encoders: four small ones of our own, small vision transformers, and every image model of timm."""

from __future__ import annotations

import importlib
import re
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from selfsup.base.hub import MODEL
from selfsup.errors import UserError, unknown
from selfsup.spec import ImageSpec

OWN = {
    "convnet": "convnet:ConvNet",
    "nature-cnn": "nature_cnn:NatureCNN",
    "place-cnn": "place_cnn:PlaceCNN",
    "mlp": "mlp:Mlp",
}


def build(name: str, spec: ImageSpec, pretrained: bool, keep_stem: bool = False, weights: Path | None = None) -> Any:
    """Return an encoder of `OWN`, `vit`, `vit-mini`, or any image model of timm, with the `weights` of a file."""
    if name in OWN:
        if pretrained or weights:
            raise UserError(f"{name} has no pretrained weights")
        module, _, attribute = OWN[name].partition(":")
        return getattr(importlib.import_module(f"selfsup.encoders.image.{module}"), attribute)(spec)
    import timm

    from selfsup.encoders.image.timm_model import VITS, TimmModel, small_vit

    if name in VITS:
        if pretrained or weights:
            raise UserError(f"{name} has no pretrained weights")
        return small_vit(name, spec)
    bare = re.sub("^(hf[-_]hub:)?timm/", "", name)
    base, _, tag = bare.partition(".")
    if not timm.is_model(base):
        if MODEL.match(name):
            raise UserError(
                f"{name}: pretrain and adapt fetch a model of the Hub, here give timm's name and a file of it"
            )
        raise unknown("encoder", name, [*OWN, *VITS, *timm.list_models()])
    if bare != name:
        raise UserError(f"{name} is the name on the Hugging Face Hub; timm's own is {bare}: give --encoder {bare}")
    if tag:
        try:
            timm.get_pretrained_cfg(bare)
        except RuntimeError:
            known = [one.partition(".")[2] for one in timm.list_models(f"{base}.*", pretrained=True)]
            raise UserError(
                f"timm has no weights with the tag {tag!r} for {base}: "
                + (f"give {base} or, of {base}.TAG, one of {', '.join(known)}" if known else f"give --encoder {base}")
            ) from None
    if weights is None:
        return TimmModel(name, spec, pretrained, keep_stem=keep_stem)
    from selfsup.encoders.weights import read_weights

    return TimmModel(name, spec, weights=read_weights(weights))


def spec_of_pretraining(name: str) -> ImageSpec | None:
    """Return the images that timm's weights of a model were trained on; None for a name that timm does not know."""
    import timm

    try:
        known = timm.get_pretrained_cfg(name)
    except RuntimeError:  # an unknown tag, which `build` refuses
        return None
    return known and ImageSpec(known.input_size[1], known.input_size[0], tuple(known.mean), tuple(known.std))


def spec_of_weights(name: str, spec: ImageSpec) -> ImageSpec:
    """Return a spec with the mean and std that timm's weights of a model were trained with.

    For 8-bit images in colour, or in grey, where the averages over the three channels are taken: timm adds up the
    weights of these channels. Anything else keeps the values that were measured on it.
    """
    known = spec_of_pretraining(name)
    if spec.range is not None or spec.channels not in (1, 3) or known is None or known.channels != 3:
        return spec
    mean, std = known.mean, known.std
    if spec.channels == 1:
        mean, std = (fmean(mean),), (fmean(std),)
    return replace(spec, mean=mean, std=std)
