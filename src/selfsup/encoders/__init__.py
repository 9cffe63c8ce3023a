"""Encoders by name: those of the modality that a spec belongs to."""

from __future__ import annotations

from typing import Any


def build_encoder(name: str, spec: Any, pretrained: bool = False) -> Any:
    """Return a fresh encoder (see `selfsup.task.Encoder`) for samples of this spec.

    `name`, for pictures: `convnet`, `vit`, or any image model of timm; for texts: bert-tiny, bert-mini, bert-small,
    gpt-tiny, gpt-mini, or any model of transformers that is on this machine. Raises `UserError` for an unknown name
    (the nearest is suggested) and for a model that cannot take such samples.
    """
    from selfsup.modalities import modality

    return modality(spec).build_encoder(name, spec, pretrained)
