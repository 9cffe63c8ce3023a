"""Encoders of texts."""

from __future__ import annotations

from typing import Any

from selfsup.spec import TextSpec


def build(name: str, spec: TextSpec, pretrained: bool) -> Any:
    """Return a transformers model."""
    from selfsup.encoders.text.transformers_model import TransformersModel

    return TransformersModel(name, spec, pretrained)
