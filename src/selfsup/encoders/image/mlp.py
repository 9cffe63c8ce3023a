"""An encoder that does not know which pixels are neighbours."""

from __future__ import annotations

from torch import Tensor, nn

from selfsup.nn.norm import BatchNorm
from selfsup.spec import ImageSpec


class Mlp(nn.Module):
    """Two hidden layers of `dim` units on the pixels as a vector: the same for any order of the pixels."""

    def __init__(self, spec: ImageSpec, dim: int = 1024) -> None:
        super().__init__()
        self.spec, self.dim = spec, dim
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(spec.channels * spec.size**2, dim),
            nn.LeakyReLU(0.2),
            nn.Linear(dim, dim, bias=False),
            BatchNorm(dim, affine=False),
            nn.LeakyReLU(0.2),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, dim)."""
        features: Tensor = self.layers(x)
        return features
