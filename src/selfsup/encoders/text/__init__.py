"""Text encoders: small BERT and GPT models, and every model of transformers."""

from __future__ import annotations

from typing import Any

from selfsup.spec import TextSpec


def build(name: str, spec: TextSpec, pretrained: bool) -> Any:
    """Return a preset or any other transformers model."""
    from selfsup.encoders.text.transformers_model import TransformersModel

    return TransformersModel(name, spec, pretrained)
