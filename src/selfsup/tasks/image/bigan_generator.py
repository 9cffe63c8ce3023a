"""The generator of `bigan` without convolutions, as of the permutation-invariant MNIST in the paper."""

from __future__ import annotations

from torch import Tensor, nn

from selfsup.nn.norm import BatchNorm
from selfsup.spec import ImageSpec


class DenseGenerator(nn.Module):
    """An MLP (B, latent_dim) -> (B, C, H, W), which z enters at the first and, with other weights, the second layer."""

    def __init__(self, latent_dim: int, hidden_dim: int, spec: ImageSpec) -> None:
        super().__init__()
        self.first = nn.Linear(latent_dim, hidden_dim, bias=False)
        self.second = nn.Linear(hidden_dim, hidden_dim, bias=False)
        self.again = nn.Linear(latent_dim, hidden_dim, bias=False)
        self.norms = nn.ModuleList(BatchNorm(hidden_dim, affine=False) for _ in range(2))
        self.last = nn.Linear(hidden_dim, spec.channels * spec.size**2)
        self.shape = spec.channels, spec.size, spec.size

    def forward(self, z: Tensor) -> Tensor:
        """(B, latent_dim) -> (B, C, H, W)."""
        hidden = self.norms[0](self.first(z)).relu()
        hidden = self.norms[1](self.second(hidden) + self.again(z)).relu()
        return self.last(hidden).unflatten(1, self.shape)
