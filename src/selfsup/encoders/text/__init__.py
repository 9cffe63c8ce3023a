"""Text encoders: a bag of words, small BERT and GPT models, and every model of transformers."""

from __future__ import annotations

from typing import Any

from selfsup.errors import UserError
from selfsup.spec import TextSpec


def build(name: str, spec: TextSpec, pretrained: bool) -> Any:
    """Return `bag-of-words`, a preset or any other transformers model."""
    if name == "bag-of-words":
        from selfsup.encoders.text.bag_of_words import BagOfWords

        if pretrained:
            raise UserError(f"{name} has no pretrained weights")
        return BagOfWords(spec)
    from selfsup.encoders.text.transformers_model import TransformersModel

    return TransformersModel(name, spec, pretrained)
