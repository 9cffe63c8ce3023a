"""An encoder of ours in a policy of Stable-Baselines3."""

from __future__ import annotations

import os
from typing import Any

import torch
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor

from selfsup.errors import UserError
from selfsup.nn.constants import mean_std
from selfsup.run import Run


class Features(BaseFeaturesExtractor):  # type: ignore[misc]
    """Observations (B, C, H, W) from 0 to 1, as Stable-Baselines3 gives images -> the representation (B, dim).

    The encoder is that of a run, and is not trained. Raises `UserError` for observations of another size or channels.
    """

    def __init__(self, observation_space: Any, run: str | os.PathLike[str]) -> None:
        encoder: Any = Run(run).load()
        self_spec = getattr(encoder.spec, "image", encoder.spec)
        wanted = (self_spec.channels, self_spec.size, self_spec.size)
        if tuple(observation_space.shape) != wanted:
            raise UserError(f"{run} takes observations of the shape {wanted}, not {tuple(observation_space.shape)}")
        super().__init__(observation_space, encoder.dim)
        self.encoder, self.spec = encoder.requires_grad_(False), self_spec

    def train(self, mode: bool = True) -> Features:
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, observations: Tensor) -> Tensor:
        """Return the representation."""
        mean, std = mean_std(self.spec, observations)
        return self.encoder((observations - mean) / std)
