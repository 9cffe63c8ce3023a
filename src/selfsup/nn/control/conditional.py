"""A code of an observation, given how its episode began."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from selfsup.losses import full


class Conditional(nn.Module):
    """(B, C, H, W) -> (B, dim): the code (`latent_dim`) beside that of the scene (`context_dim`), side by side.

    The scene is what was seen when the episode began, which has an encoder of its own, `encoder`'s copy at first. An
    observation without a beginning is its own.
    """

    def __init__(self, encoder: Any, latent_dim: int, context_dim: int) -> None:
        super().__init__()
        self.encoder, self.scene_encoder = encoder, copy.deepcopy(encoder)
        self.norm, self.scene = nn.LayerNorm(encoder.dim), nn.Linear(encoder.dim, context_dim)
        self.latent = nn.Linear(encoder.dim + context_dim, latent_dim)
        self.spec, self.dim, self.context_dim = encoder.spec, latent_dim + context_dim, context_dim

    def context(self, first: Tensor) -> Tensor:
        """Return the code of the scene (B, context_dim) from first observations."""
        return full(self.scene(self.scene_encoder(first)))

    def features(self, x: Tensor, context: Tensor) -> Tensor:
        """Return what the code is read from (B, encoder.dim + context_dim)."""
        return torch.cat([self.norm(self.encoder(x)), context.to(x.dtype)], 1)

    def conditioned(self, x: Tensor, first: Tensor) -> Tensor:
        """Return (B, dim) of observations and the first ones of their episodes."""
        context = self.context(first)
        return torch.cat([full(self.latent(self.features(x, context))), context], 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, dim) of observations with which an episode begins."""
        return self.conditioned(x, x)
