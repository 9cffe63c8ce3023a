"""A bag of words: the weighted mean of the embeddings of a document's tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from selfsup.spec import TextSpec

DIM = 128


class BagOfWords(nn.Module):
    """The mean of the token embeddings, each times a learned weight: (B, T) int64 -> (B, dim).

    It knows nothing of the order of words, costs a hundredth of a transformer and suits topics, as fastText does
    (Joulin et al., 2017). A token is embedded without its neighbours: `causal`, since it sees none after it.
    """

    causal, pooling_words = True, "the weighted mean over the tokens"

    def __init__(self, spec: TextSpec) -> None:
        super().__init__()
        self.spec, self.dim = spec, DIM
        self.table = nn.Embedding(spec.vocabulary, DIM)
        nn.init.normal_(self.table.weight, std=DIM**-0.5)
        self.log_weight = nn.Embedding(spec.vocabulary, 1)
        nn.init.zeros_(self.log_weight.weight)

    @property
    def embedding(self) -> Tensor:
        """Return the token embeddings (V, dim)."""
        return self.table.weight

    def tokens(self, x: Tensor) -> Tensor:
        """(B, T) ids -> (B, T, dim)."""
        return self.table(x)

    def pool(self, x: Tensor, states: Tensor) -> Tensor:
        """(B, T) ids and their `tokens` (B, T, dim) -> the representation (B, dim)."""
        words = (x != self.spec.pad).unsqueeze(2)
        weight = torch.where(words, self.log_weight(x).exp(), 0.0)
        return (states * weight).sum(1) / words.sum(1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T) ids, of any number of windows -> (B, dim)."""
        return self.pool(x, self.tokens(x))
