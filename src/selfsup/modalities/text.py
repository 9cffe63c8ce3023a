"""Texts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from selfsup.data import Texts, TextSpec, tokens
from selfsup.errors import UserError, need
from selfsup.views import Views
from selfsup.views.text import TextViews

SHOWN = 200  # characters
WORDS = 20_000  # that TF-IDF counts, at most


class Text:
    """`TextSpec`: tokens, (B, T) int64."""

    small = "bert-tiny"
    baseline, alike = "TF-IDF", False
    formats = {"safetensors": ".safetensors", "transformers": "", "torch": ".pt2", "onnx": ".onnx"}  # noqa: RUF012
    about = {  # noqa: RUF012
        "TF-IDF": "words and pairs of words, at most 20,000, weighed on the training part without its labels, each "
        "document of length 1; the linear reader leaves their scale as it is",
        "PCA": "the first 64 principal components of those, from the training part without its labels",
    }

    def read_spec(self, recipe: Mapping[str, Any], folder: Path) -> TextSpec:
        """Return the spec with the tokenizer that lies in the run folder."""
        values = {field.name: recipe[field.name] for field in fields(TextSpec)}
        if not (type(values["size"]) is int and 3 < values["size"] <= 1 << 20 and type(values["vocabulary"]) is int):
            raise ValueError("it has an impossible spec")
        path = folder / "tokenizer.json"
        try:
            digest = tokens.keep(path.read_text(encoding="utf-8"))
        except OSError:
            raise ValueError(f"{path} is missing") from None
        if digest != values["tokenizer"]:
            raise ValueError(f"{path} is another tokenizer")
        return TextSpec(**values)

    def save(self, spec: TextSpec, folder: Path) -> None:
        """Write the tokenizer."""
        from selfsup.writing import write_atomically

        write_atomically(folder / "tokenizer.json", tokens.tokenizer_json(spec.tokenizer).encode())

    def words(self, spec: TextSpec) -> tuple[str, str]:
        """Return the length and the vocabulary."""
        return "texts", f"{spec.size} tokens, of a vocabulary of {spec.vocabulary:,}"

    def check(self, source: Any, spec: TextSpec) -> None:
        """Raise `UserError` for what are no texts."""
        if getattr(source, "modality", "image") != "text":
            raise UserError(f"{source.name} holds no texts, which this encoder takes")

    def build_encoder(self, name: str, spec: TextSpec, pretrained: bool) -> Any:
        """Return a transformers model."""
        from selfsup.encoders.transformers_model import TransformersModel

        return TransformersModel(name, spec, pretrained)

    def plain_views(self, spec: TextSpec) -> TextViews:
        """Return the document in windows."""
        return TextViews(spec)

    def labelled_views(self, spec: TextSpec, pad: int, flip: float) -> TextViews:
        """Return a window of each document, which is neither shifted nor flipped."""
        return TextViews(spec, "one", labels=True)

    def several_views(self, spec: TextSpec) -> tuple[Views, str]:
        """Return windows at random places."""
        return TextViews(spec, "one"), "windows at random places of the document"

    def features(
        self, parts: tuple[Any, ...], spec: TextSpec, quiet: bool
    ) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Return TF-IDF of words and pairs of words."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        counter = TfidfVectorizer(sublinear_tf=True, max_features=WORDS, ngram_range=(1, 2), dtype=np.float32)
        found = []
        for number, part in enumerate(parts):
            rows = part.lie(spec.tokenizer)
            read = np.flatnonzero(rows.stops > rows.starts)
            texts = (part.read(int(index)) for index in read)
            try:
                x = counter.transform(texts) if number else counter.fit_transform(texts)
            except ValueError:
                raise UserError(f"{part.name} holds no words that TF-IDF could count") from None
            found.append((read, x.toarray()))
        return found

    def baseline_module(self) -> None:
        """Return none: how much a word weighs depends on the other documents."""

    def draw(self, x: Tensor, spec: TextSpec) -> tuple[Image.Image | None, str]:
        """Return the beginning of the text."""
        words: str = tokens.tokenizer(spec.tokenizer).decode(x[: spec.size].tolist(), skip_special_tokens=True)
        return None, words if len(words) <= SHOWN else words[:SHOWN] + " …"

    def example(self, spec: TextSpec) -> tuple[Tensor, dict[int, Any]]:
        """Return two texts of different length; any number of texts up to the encoder's length."""
        x = torch.full((2, min(12, spec.size)), spec.vocabulary - 1)
        x[:, 0], x[:, -1], x[1, -2:] = spec.cls, spec.sep, spec.pad
        return x, {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("tokens", min=3, max=spec.size)}

    def export(
        self, encoder: nn.Module, spec: TextSpec, name: str, format: str, path: Path, about: dict[str, Any]
    ) -> str:
        """Write a folder that transformers loads: model and tokenizer."""
        hf: Any = need("transformers", "text")
        hf.utils.logging.disable_progress_bar()
        module: Any = encoder
        module.model.save_pretrained(path)
        made = tokens.tokenizer(spec.tokenizer)
        called = {f"{what}_token": made.id_to_token(tokens.special(spec.tokenizer, what)) for what in tokens.SPECIAL}
        fast = hf.PreTrainedTokenizerFast(
            tokenizer_object=_framed(made, spec), model_max_length=spec.size, padding_side="right", **called
        )
        fast.save_pretrained(path)
        return (
            f"load: transformers.AutoModel.from_pretrained({str(path)!r}), AutoTokenizer likewise; the representation "
            f"is {module.pooling_words}"
        )

    def query(self, text: str) -> Texts:
        """Return the sentence itself, or the text in the file of that name."""
        if os.path.isfile(text):
            with open(text, encoding="utf-8", errors="replace") as file:
                text = file.read()
        if not text.strip():
            raise UserError("the query is empty: give a sentence or a .txt file")
        return Texts.of([text], name="query")


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
