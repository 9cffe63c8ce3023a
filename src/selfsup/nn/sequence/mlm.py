"""What tasks on texts share: hiding words, and from the states of an encoder to the words of its vocabulary."""

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


def mask_tokens(
    x: Tensor, noise: Tensor, share: float, spec: TextSpec, goes_on: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return ids (B, T) of which a share is hidden, and where (B, T) they are asked for (BERT, section 3.1).

    Of what is asked for 80% become [MASK], 10% another token, 10% stay. `noise` (B,) int64: the keys of the samples.
    `goes_on` (V,) tells the tokens that go on with the word before them: then all tokens of a word are hidden together.
    """
    which, how, other = (uniform(noise, x.shape[1], stream=stream) for stream in range(3))
    if goes_on is not None:  # all tokens of a word share the draw of its first
        begins = ~goes_on[x]
        first = torch.arange(x.shape[1], device=x.device).mul(begins).cummax(1).values
        which, how = which.gather(1, first), how.gather(1, first)
    frame = (x == spec.pad) | (x == spec.cls) | (x == spec.sep)
    asked = (which < share) & ~frame
    changed = torch.where(how < 0.8, spec.mask, torch.where(how < 0.9, (other * spec.vocabulary).long(), x))
    return torch.where(asked, changed, x), asked


def mlm_loss(head: MLMHead, encoder: Any, states: Tensor, x: Tensor, asked: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the cross-entropy of the tokens of x (B, T) that are `asked` for (B, T), and the metrics of it.

    `states` (B, T, dim): what the encoder makes of the tokens with the hidden ones replaced.
    """
    logits, target = head(states[asked], encoder.embedding), x[asked]
    loss = cross_entropy(logits, target)
    return loss, {"word_loss": loss.detach(), "word_accuracy": accuracy(logits, target)}
