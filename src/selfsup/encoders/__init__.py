"""Encoders by name, for each kind of data."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from selfsup.errors import UserError
from selfsup.spec import Spec

ENCODERS = {  # each module has `build`
    "image": "selfsup.encoders.image",
    "text": "selfsup.encoders.text",
    "video": "selfsup.encoders.video",
    "audio": "selfsup.encoders.audio",
    "trajectory": "selfsup.encoders.trajectory",
}


def build_encoder(
    name: str, spec: Spec, pretrained: bool = False, keep_stem: bool = False, weights: Path | None = None
) -> Any:
    """Return a new encoder (see `selfsup.task.Encoder`) for samples of this spec.

    `name`, for images: `convnet`, `nature-cnn`, `place-cnn`, `mlp`, `vit`, `vit-mini`, or any of timm's; for texts:
    `bag-of-words`, bert-tiny, bert-mini, bert-small, gpt-tiny, gpt-mini, or any transformers model on this machine; for
    videos: `vit-clip`, r3d_18, mc3_18, r2plus1d_18, or an image encoder that reads frame by frame; for recordings:
    `conv-gru`, `wav2vec2-small` or a transformers model on this machine (samples), `audio-cnn`, or an image encoder
    that reads spectrograms. Raises `UserError` for an unknown name, with the nearest known one, and for a model that
    cannot take such samples. `keep_stem`: without the stem for small images, as with pretrained weights. `weights`: a
    file of them, for an image model of timm (see `encoders.weights.read_weights`).
    """
    if not isinstance(name, str):
        raise UserError(f"an encoder is given by its name, not as {type(name).__name__}: see docs/encoders.md")
    more: dict[str, Any] = {"keep_stem": True} if keep_stem and spec.kind == "image" else {}
    if weights is not None:
        if spec.kind != "image":
            raise UserError(f"--weights is for image models of timm, not for encoders of {spec.samples}")
        more["weights"] = weights
    return importlib.import_module(ENCODERS[spec.kind]).build(name, spec, pretrained, **more)


def spec_of_weights(name: str, spec: Any) -> Any:
    """Return the spec of the samples that the pretrained weights of an encoder are used to: images of their mean, std.

    The same spec where it is not known, and for texts, whose tokenizer is that of the weights.
    """
    if spec.kind != "image" or not isinstance(name, str):
        return spec
    from selfsup.encoders.image import spec_of_weights

    return spec_of_weights(name, spec)
