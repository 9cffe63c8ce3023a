"""Masked language modelling: masking tokens, a head from an encoder's states to its vocabulary, and its loss."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.losses import cross_entropy
from selfsup.nn.heads import accuracy
from selfsup.nn.noise import uniform
from selfsup.spec import TextSpec


class MLMHead(nn.Module):
    """(…, dim) -> (…, V): BERT's hidden layer, then the scalar product with the encoder's own token embeddings."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        num_tokens, dim = encoder.embedding.shape
        self.dense, self.norm = nn.Linear(encoder.dim, dim), nn.LayerNorm(dim)
        self.bias = nn.Parameter(torch.zeros(num_tokens))
        nn.init.normal_(self.dense.weight, std=0.02)

    def forward(self, states: Tensor, embedding: Tensor) -> Tensor:
        """Return the logits."""
        return F.linear(self.norm(F.gelu(self.dense(states))), embedding, self.bias)

    @torch.no_grad()
    def start_at(self, counts: Tensor) -> None:
        """Set an untrained bias to the log of the tokens' frequencies, from their `counts` (V,), each one more."""
        if not self.bias.any():
            self.bias.copy_(torch.log_softmax((counts + 1).log(), 0))


def mask_tokens(
    x: Tensor, noise: Tensor, mask_ratio: float, spec: TextSpec, continues: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return masked ids (B, T), and where they are masked (B, T): the tokens to predict (BERT, section 3.1).

    Of the masked tokens 80% become [MASK], 10% a random token, and 10% stay. `noise` (B,) int64: the samples' keys.
    `continues` (V,) marks the tokens that continue a word: given them, all tokens of a word are masked together.
    """
    which, how, other = (uniform(noise, x.shape[1], stream=stream) for stream in range(3))
    if continues is not None:  # all tokens of a word take the draw of its first
        begins = ~continues[x]
        first = torch.arange(x.shape[1], device=x.device).mul(begins).cummax(1).values
        which, how = which.gather(1, first), how.gather(1, first)
    special = (x == spec.pad) | (x == spec.cls) | (x == spec.sep)
    masked = (which < mask_ratio) & ~special
    changed = torch.where(how < 0.8, spec.mask, torch.where(how < 0.9, (other * spec.vocabulary).long(), x))
    return torch.where(masked, changed, x), masked


def mlm_loss(
    head: MLMHead, encoder: Any, states: Tensor, x: Tensor, masked: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the cross-entropy of the `masked` (B, T) tokens of x (B, T), and its metrics.

    `states` (B, T, dim): the encoder's output for the masked ids.
    """
    logits, target = head(states[masked], encoder.embedding), x[masked]
    loss = cross_entropy(logits, target)
    return loss, {"word_loss": loss.detach(), "word_accuracy": accuracy(logits, target)}
