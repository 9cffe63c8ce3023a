"""Texts: documents and their tokens."""

from selfsup.data.text.sources import Texts, Tokenized, pieces

__all__ = ["Texts", "Tokenized", "pieces"]
