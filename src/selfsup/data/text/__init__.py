"""Texts: documents and their tokens."""

from selfsup.data.text.sources import Texts, Tokenized, pieces, token_counts

__all__ = ["Texts", "Tokenized", "pieces", "token_counts"]
