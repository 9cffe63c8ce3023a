"""The linear probe for numeric labels: ridge regression in closed form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfsup.errors import UserError
from selfsup.evaluation.rows import Features, as_matrix, blocks, row_space, standardise

PENALTIES = tuple(10.0**power for power in range(4, -5, -1))


def fit_ridge(
    x: Features, y: NDArray[np.float64] | Tensor, *, penalties: Sequence[float] = PENALTIES, shared: bool = True
) -> Ridge:
    """Fit values by ridge regression on standardised features, with a free intercept.

    Minimises Σ (y - prediction)² + penalty · d · ‖weights‖² with the penalty whose exact leave-one-out error is the
    smallest: summed over targets in units of their variance, or of each target where none is `shared`. Multi-label
    targets of 0 and 1 work too: the predictions rank the samples.

    Args:
        x: features (n, d), array or tensor; the work is done on its device.
        y: values (n,) or (n, targets).
        penalties: the candidates.
        shared: whether all targets have one penalty.

    Raises:
        UserError: features or values that are not finite, fewer than two samples, shapes that do not fit.
    """
    features = as_matrix(x)
    values = torch.as_tensor(y).to(features.device, torch.float64)
    if len(values) != len(features) or values.ndim not in (1, 2) or len(values) < 2:
        raise UserError(f"{len(features)} samples need as many values, at least two, not {tuple(values.shape)}")
    if not values.isfinite().all():
        raise UserError("numeric labels hold NaN or infinity")
    targets = values.reshape(len(values), -1)
    mean, scale, z = standardise(features, features.numel())
    coordinates, axes = row_space(z)
    coordinates = coordinates.double()
    spread = (coordinates**2).sum(0)
    middle, unit = targets.mean(0), targets.std(0, correction=0).clamp_min(1e-300)
    along = coordinates.T @ (targets - middle)
    best = targets.new_full((targets.shape[1],), math.inf)
    weights, penalty = torch.zeros_like(along), best.clone()
    for candidate in penalties:
        shrunk = 1 / (spread + candidate * features.shape[1])
        fitted = shrunk[:, None] * along
        influence = 1 / len(targets) + coordinates**2 @ shrunk
        left_out = (targets - middle - coordinates @ fitted) / (1 - influence).clamp_min(1e-12)[:, None]
        error = ((left_out / unit) ** 2).sum(0)
        error = error.mean().expand_as(error) if shared else error
        better = error < best
        best, penalty = torch.where(better, error, best), torch.where(better, candidate, penalty)
        weights = torch.where(better, fitted, weights)
    loss, chosen = float(best.mean()) / len(targets), float(penalty.mean())
    return Ridge(mean, scale, axes.double() @ weights, middle, values.ndim == 1, chosen, loss)


@dataclass(frozen=True)
class Ridge:
    """A linear regression; see `fit_ridge`."""

    mean: Tensor  # (d,)
    scale: Tensor  # (d,), infinite for constant features
    weight: Tensor  # (d, targets)
    bias: Tensor  # (targets,)
    flat: bool  # the values had one dimension
    penalty: float  # per feature; the mean over targets
    loss: float = math.nan  # mean squared leave-one-out error in units of the variance

    def predict(self, x: Features) -> NDArray[np.float64]:
        """Return values (m,) or (m, targets), as those of `fit_ridge` were."""
        features = as_matrix(x).to(self.weight.device)
        rows = blocks(len(features), features.shape[1])
        done = torch.cat([((features[r] - self.mean) / self.scale).double() @ self.weight + self.bias for r in rows])
        return (done[:, 0] if self.flat else done).cpu().numpy()
