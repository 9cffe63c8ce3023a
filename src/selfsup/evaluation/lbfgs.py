"""L-BFGS for several smooth convex problems at once: one matrix product serves all folds of a cross-validation."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

Objective = Callable[[Tensor], tuple[Tensor, Tensor]]


def minimise(
    objective: Objective, x: Tensor, curvature: Tensor, tolerance: float, *, floor: Tensor, steps: int, memory: int = 10
) -> tuple[Tensor, bool]:
    """Minimise B independent convex functions by L-BFGS (Liu and Nocedal, 1989) with a diagonal first Hessian.

    Args:
        objective: (R, B, K) -> values (B,) float64 and gradients (R, B, K).
        x: where to start, (R, B, K) float32 or float64; a problem is a slice [:, b].
        curvature: a positive guess of the Hessian's diagonal that broadcasts to x.
        tolerance: a problem is done when its distance from the minimum, as the past steps foretell it, is at most this
            part of its value, plus `floor`.
        floor: (B,); by how much rounding may change a value.
        steps: at most as many steps.
        memory: how many past steps shape the next one.

    Returns:
        The best points (R, B, K), and whether there is nothing left to do: every problem is either solved or kept from
        going on by float precision.
    """
    value, gradient = objective(x)
    scale = torch.ones_like(value)
    going = torch.ones_like(value, dtype=torch.bool)
    past: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=memory)
    for _ in range(steps):
        direction = _descent(gradient, past, scale, curvature)
        slope = _dot(gradient, direction)
        going = going & (slope < -2 * (tolerance * value + floor))
        if not going.any():
            return x, True
        direction, slope = direction * _wide(going, x), slope * going
        step = torch.ones_like(value)
        for _ in range(20):
            trial = x + _wide(step, x) * direction
            new_value, new_gradient = objective(trial)
            low = new_value <= value + 1e-4 * step * slope + floor
            if low.all():
                break
            step = torch.where(low, step, step / 4)
        going = going & low
        moved, change = trial - x, new_gradient - gradient
        bend, size = _dot(moved, change), _dot(change, change / curvature)
        curved = going & (bend > torch.finfo(x.dtype).eps * size)
        past.append((moved, change, torch.where(curved, 1 / bend, 0)))
        scale = torch.where(curved, bend / size, scale)
        keep = _wide(low, x) > 0
        x, gradient = torch.where(keep, trial, x), torch.where(keep, new_gradient, gradient)
        value = torch.where(low, new_value, value)
    return x, False


def _descent(gradient: Tensor, past: deque[tuple[Tensor, Tensor, Tensor]], scale: Tensor, curvature: Tensor) -> Tensor:
    """Return minus the inverse Hessian, as the past steps show it, times the gradient: the two-loop recursion."""
    q, shares = gradient.clone(), []
    for moved, change, inverse in reversed(past):
        shares.append(inverse * _dot(moved, q))
        q -= _wide(shares[-1], q) * change
    q = q * _wide(scale, q) / curvature
    for (moved, change, inverse), share in zip(past, reversed(shares), strict=True):
        q += _wide(share - inverse * _dot(change, q), q) * moved
    return -q


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((0, 2)).double()


def _wide(per_problem: Tensor, like: Tensor) -> Tensor:
    return per_problem.to(like.dtype)[:, None]
