"""From the states of an encoder of texts to the words of its vocabulary."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class WordHead(nn.Module):
    """(…, dim) -> (…, V): a layer as BERT has it, then the scalar product with the encoder's own token vectors."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.dense, self.norm = (
            nn.Linear(encoder.dim, encoder.embedding.shape[1]),
            nn.LayerNorm(encoder.embedding.shape[1]),
        )
        self.bias = nn.Parameter(torch.zeros(len(encoder.embedding)))
        nn.init.normal_(self.dense.weight, std=0.02)

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        """Return the logits."""
        return F.linear(self.norm(F.gelu(self.dense(hidden))), embedding, self.bias)
