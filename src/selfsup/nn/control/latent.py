"""The latent state of an observation."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Latent(nn.Module):
    """(B, ...) -> (B, dim): an encoder, a linear layer and LayerNorm.

    A loss between latents can be made small by making them all small. LayerNorm gives each of them mean 0 and variance
    1 over its units, so that this way is closed; that all of them become the same is not ruled out.
    """

    def __init__(self, encoder: Any, dim: int) -> None:
        super().__init__()
        self.encoder, self.layer, self.norm = encoder, nn.Linear(encoder.dim, dim), nn.LayerNorm(dim)
        self.spec, self.dim = encoder.spec, dim

    def forward(self, x: Tensor) -> Tensor:
        """Return the latent state."""
        return self.norm(self.layer(self.encoder(x)))
