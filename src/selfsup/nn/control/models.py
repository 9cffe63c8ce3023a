"""Models of an environment in a latent space: which latent follows an action, and which reward."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.losses import full, unit
from selfsup.nn import noise

MIN_SIGMA, MAX_SIGMA = 1e-4, 10.0


def action_vectors(action: Tensor, space: tuple[str, int]) -> Tensor:
    """Return actions as (B, A) float32: discrete ones (B,) int64 one-hot, those of a box (B, A) as they are."""
    return F.one_hot(action, space[1]).float() if space[0] == "discrete" else full(action)


def layer_norm_mlp(*dims: int) -> nn.Sequential:
    """Return an MLP dims[0] -> ... -> dims[-1] with LayerNorm and ReLU between its linear layers."""
    layers: list[nn.Module] = []
    for before, after in pairwise(dims[:-1]):
        layers += [nn.Linear(before, after), nn.LayerNorm(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Linear(dims[-2], dims[-1]))


class Dynamics(nn.Module):
    """A normal distribution of the next latent, of independent units: `forward` (B, d), (B, A) -> mean and std (B, d).

    With `probabilistic` the std is predicted, in [0.0001, 10]; otherwise it is 1, and `normal_loss` half the squared
    error.
    """

    def __init__(self, dim: int, actions: int, hidden_dim: int, probabilistic: bool) -> None:
        super().__init__()
        self.probabilistic = probabilistic
        self.layers = layer_norm_mlp(dim + actions, hidden_dim, 2 * dim if probabilistic else dim)

    def forward(self, z: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and the std of the next latent."""
        out = full(self.layers(torch.cat([z, action], 1)))
        if not self.probabilistic:
            return out, torch.ones_like(out)
        mean, scale = out.chunk(2, 1)
        return mean, MIN_SIGMA + (MAX_SIGMA - MIN_SIGMA) * scale.sigmoid()


def normal_loss(mean: Tensor, sigma: Tensor, target: Tensor) -> Tensor:
    """Return the negative log-likelihood of `target` (B, d), without its constant: the mean over samples and units."""
    return (0.5 * ((mean - full(target)) / sigma).square() + sigma.log()).mean()


def explained(guess: Tensor, target: Tensor) -> Tensor:
    """Return the fraction of the variance of `target` (B, d) over the batch that a guess explains (R²)."""
    guess, target = full(guess.detach()), full(target.detach())
    return 1 - (guess - target).square().mean() / (target - target.mean(0)).square().mean().clamp_min(1e-8)


def gradient_penalty(model: nn.Module, z: Tensor, action: Tensor, key: Tensor) -> Tensor:
    """Return by how much a model of (z, a) is steeper than 1 in z: the mean of max(0, ‖∂(u · model)/∂z‖ - 1)².

    The unit vector u, the direction in which outputs are measured, is drawn for each sample from `key` (B,) int64. The
    latents (B, d) get no gradient.
    """
    with torch.enable_grad():
        at = full(z.detach()).requires_grad_()
        out = model(at, action)[0] if isinstance(model, Dynamics) else full(model(torch.cat([at, action], 1)))
        along = (out * unit(noise.normal(key, out.shape[1]))).sum()
        (slope,) = torch.autograd.grad(along, at, create_graph=True)
        return F.relu(slope.norm(dim=1) - 1).square().mean()
