"""Texts as an encoder takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from selfsup.base.writing import write_atomically
from selfsup.spec import tokenizer

SHOWN = 200  # characters of a text that is drawn
FILE = "tokenizer.json"  # in a run folder


@dataclass(frozen=True)
class TextSpec:
    """Up to `size` tokens, (B, T) int64: [CLS] … [SEP], then padding.

    `tokenizer` is the digest by which `selfsup.spec.tokenizer` finds it; `bytes_per_token` and `entropy` (nats, of
    single tokens) describe the data that the spec was made from.
    """

    kind: ClassVar[str] = "text"
    samples: ClassVar[str] = "texts"
    axes: ClassVar[str] = "BT"
    of_training: ClassVar[tuple[str, ...]] = ()

    size: int
    tokenizer: str
    vocabulary: int
    pad: int
    cls: int
    sep: int
    mask: int
    bytes_per_token: float
    entropy: float

    @property
    def room(self) -> int:
        """Tokens of the text itself in a sample, without [CLS] and [SEP]."""
        return self.size - 2

    def example(self, n: int) -> Tensor:
        """Return n texts of 12 tokens, (n, 12) int64, the second one shorter."""
        x = torch.full((n, min(12, self.size)), self.vocabulary - 1)
        x[:, 0], x[:, -1], x[1:2, -2:] = self.cls, self.sep, self.pad
        return x

    def describe(self) -> str:
        """Return the length and the vocabulary."""
        return f"{self.size} tokens, of a vocabulary of {self.vocabulary:,}"

    def draw(self, x: Tensor) -> str:
        """Return the beginning of a text (T,)."""
        made = tokenizer.tokenizer(self.tokenizer)
        words: str = made.decode(x[: self.size].tolist(), skip_special_tokens=True)
        return words if len(words) <= SHOWN else words[:SHOWN] + " …"

    def to_json(self) -> dict[str, Any]:
        """Return all fields."""
        return {"kind": self.kind, **asdict(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], folder: Path) -> TextSpec:
        """Return the spec with the tokenizer of the run folder; ValueError for one that is missing or has changed."""
        known = {field.name: values[field.name] for field in fields(TextSpec)}
        if not (type(known["size"]) is int and 3 < known["size"] <= 1 << 20 and type(known["vocabulary"]) is int):
            raise ValueError("it has an impossible spec")
        path = folder / FILE
        try:
            digest = tokenizer.keep(path.read_text(encoding="utf-8"))
        except OSError:
            raise ValueError(f"{path} is missing") from None
        if digest != known["tokenizer"]:
            raise ValueError(f"{path} is not the tokenizer of this run")
        return cls(**known)

    def save(self, folder: Path) -> None:
        """Write the tokenizer."""
        write_atomically(folder / FILE, tokenizer.tokenizer_json(self.tokenizer).encode())
