"""An encoder that does not know which pixels are neighbours."""

from __future__ import annotations

from torch import Tensor, nn

from selfsup.encoders.image.sizes import check_size
from selfsup.nn.norm import BatchNorm
from selfsup.spec import ImageSpec


class Mlp(nn.Module):
    """Two layers of `dim` units on the flattened pixels; any fixed order of the pixels would do as well."""

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
        check_size(self.spec, x)
        return self.layers(x)
