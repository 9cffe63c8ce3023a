"""The product quantizer of wav2vec 2.0: a code from each of several codebooks, chosen with Gumbel noise."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.base.distributed import sum_over_ranks, world_size
from selfsup.errors import UserError
from selfsup.losses import full
from selfsup.nn import noise

WARM, COLD = 2.0, 0.5  # the temperature at the start of a run and at its end


class Quantizer(nn.Module):
    """Latents (B, M, C) -> codes (B, M, out_dim), from `groups` codebooks of `codes` vectors (section 2)."""

    def __init__(self, latent_dim: int, groups: int, codes: int, out_dim: int) -> None:
        super().__init__()
        if out_dim % groups:
            raise UserError(f"--out-dim {out_dim} cannot be divided among {groups} codebooks")
        self.shape, self.count = (groups, codes), groups * codes
        self.score = nn.Linear(latent_dim, groups * codes)
        self.codes = nn.Parameter(torch.empty(groups, codes, out_dim // groups).uniform_())
        self.out = nn.Linear(out_dim, out_dim)
        nn.init.normal_(self.score.weight)  # decided from the start: codes that are all alike would be chosen never
        nn.init.zeros_(self.score.bias)

    def forward(self, latents: Tensor, key: Tensor, progress: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return codes, and of each codebook which is the likeliest (B, M, groups) and the probabilities (…, codes).

        Gumbel noise follows from the recordings' keys (B,). The gradient is that of the soft choice.
        """
        logits = full(self.score(F.layer_norm(latents, latents.shape[2:]))).unflatten(2, self.shape)
        gumbel = -(-noise.uniform(key, *logits.shape[1:], stream=2).to(logits.dtype).log()).log()
        soft = ((logits + gumbel) / (WARM * (COLD / WARM) ** progress)).softmax(3)
        hard = F.one_hot(soft.argmax(3), self.shape[1]).to(soft.dtype)
        choice = hard + soft - soft.detach()
        vectors = torch.einsum("bmgk,gkd->bmgd", choice, self.codes.to(choice.dtype)).flatten(2)
        return self.out(vectors), hard.argmax(3), logits.softmax(3)

    def perplexity(self, probabilities: Tensor) -> Tensor:
        """Return the perplexity of the mean of (B, M, groups, codes) over all processes' steps, summed over groups."""
        mean = sum_over_ranks(probabilities.mean((0, 1))) / world_size()
        return torch.special.entr(mean).sum(1).exp().sum()
