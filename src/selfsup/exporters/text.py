"""Encoders of texts for transformers (`selfsup.exporters.Exporter`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from selfsup.errors import UserError, need
from selfsup.exporters.batch_only import program as program
from selfsup.spec import TextSpec, tokenizer

FORMATS = {"transformers": ""}


def open_dims(spec: TextSpec) -> dict[int, Any]:
    """Return the batch, and the tokens up to the encoder's length."""
    return {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("tokens", min=3, max=spec.size)}


def write(encoder: nn.Module, spec: TextSpec, name: str, format: str, path: Path, about: dict[str, Any]) -> str:
    """Write a folder that transformers loads: model and tokenizer."""
    if not hasattr(encoder, "model"):
        raise UserError(
            f"{name} cannot be exported as transformers: it is not one of its models; give another --format"
        )
    hf: Any = need("transformers", "text")
    hf.utils.logging.disable_progress_bar()
    module: Any = encoder
    module.model.save_pretrained(path)
    made = tokenizer.tokenizer(spec.tokenizer)
    called = {f"{what}_token": made.id_to_token(tokenizer.special(spec.tokenizer, what)) for what in tokenizer.SPECIAL}
    fast = hf.PreTrainedTokenizerFast(
        tokenizer_object=_framed(made, spec), model_max_length=spec.size, padding_side="right", **called
    )
    fast.save_pretrained(path)
    return (
        f"load: transformers.AutoModel.from_pretrained({str(path)!r}), AutoTokenizer likewise; the representation "
        f"is {module.pooling_words}"
    )


def _framed(made: Any, spec: TextSpec) -> Any:
    """Return the tokenizer with the frame of the views: [CLS] text [SEP]."""
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    framed: Any = Tokenizer.from_str(made.to_str())
    cls, sep = made.id_to_token(spec.cls), made.id_to_token(spec.sep)
    framed.post_processor = TemplateProcessing(
        single=f"{cls} $A {sep}", pair=f"{cls} $A {sep} $B:1 {sep}:1", special_tokens=[(cls, spec.cls), (sep, spec.sep)]
    )
    return framed
