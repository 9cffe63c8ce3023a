"""An encoder followed by a linear layer that is part of the representation."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Coded(nn.Module):
    """(B, ...) -> (B, layer.out_features): the code that a generative model infers, as an encoder.

    `used` (layer.out_features,) multiplies it: 0 for units that say nothing of the input.
    """

    used: Tensor | None

    def __init__(self, encoder: Any, layer: nn.Linear, used: Tensor | None = None) -> None:
        super().__init__()
        self.encoder, self.layer = encoder, layer
        self.register_buffer("used", used)
        self.spec, self.dim = encoder.spec, layer.out_features

    def forward(self, x: Tensor) -> Tensor:
        """Return the code."""
        code = self.layer(self.encoder(x))
        return code if self.used is None else code * self.used
