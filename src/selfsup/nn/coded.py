"""An encoder followed by a linear layer that is part of the representation."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Coded(nn.Module):
    """(B, ...) -> (B, layer.out_features): the code that a generative model infers, as an encoder."""

    def __init__(self, encoder: Any, layer: nn.Linear) -> None:
        super().__init__()
        self.encoder, self.layer = encoder, layer
        self.spec, self.dim = encoder.spec, layer.out_features

    def forward(self, x: Tensor) -> Tensor:
        """Return the code."""
        return self.layer(self.encoder(x))
