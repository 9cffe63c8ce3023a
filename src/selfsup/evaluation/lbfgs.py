"""L-BFGS for several smooth convex problems at once: one matrix product serves all folds of a cross-validation."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

Objective = Callable[[Tensor], tuple[Tensor, Tensor]]
Inverse = Callable[[Tensor], Tensor]
MEMORY = 10  # past steps that shape the next one


def minimise(
    objective: Objective, x: Tensor, inverse: Inverse, tolerance: float, *, floor: Tensor, steps: int
) -> tuple[Tensor, bool]:
    """Minimise B independent convex functions by L-BFGS (Liu and Nocedal, 1989) from a guess of the inverse Hessian.

    Args:
        objective: (R, B, K) -> values (B,) float64 and gradients (R, B, K).
        x: where to start, (R, B, K) float32 or float64; a problem is a slice [:, b].
        inverse: (R, B, K) -> (R, B, K), multiplies with a positive definite guess of the inverse Hessian.
        tolerance: a problem is done when its distance from the minimum, as the past steps predict it, is at most this
            fraction of its value, plus `floor`.
        floor: (B,); how much rounding may change a value.
        steps: the maximum number of steps.

    Returns:
        The best points (R, B, K), and whether there is nothing left to do: every problem is either solved or cannot be
        improved in float precision.
    """
    value, gradient = objective(x)
    scale = torch.ones_like(value)
    going = torch.ones_like(value, dtype=torch.bool)
    past: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=MEMORY)
    for _ in range(steps):
        direction = _descent(gradient, past, scale, inverse)
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
            lowest = (
                -slope * step / (2 * (new_value - value - slope * step))
            )  # of the parabola, as a fraction of the step
            step = torch.where(low, step, step * lowest.clamp(0.1, 0.5))
        going = going & low
        moved, change = trial - x, new_gradient - gradient
        bend, size = _dot(moved, change), _dot(change, inverse(change))
        curved = going & (bend > torch.finfo(x.dtype).eps * size)
        past.append((moved, change, torch.where(curved, 1 / bend, 0)))
        scale = torch.where(curved, bend / size, scale)
        keep = _wide(low, x) > 0
        x, gradient = torch.where(keep, trial, x), torch.where(keep, new_gradient, gradient)
        value = torch.where(low, new_value, value)
    return x, False


def _descent(gradient: Tensor, past: deque[tuple[Tensor, Tensor, Tensor]], scale: Tensor, inverse: Inverse) -> Tensor:
    """Return minus the inverse Hessian, estimated from the past steps, times the gradient: the two-loop recursion."""
    q, steps = gradient.clone(), []
    for moved, change, easy in reversed(past):
        steps.append(easy * _dot(moved, q))
        q -= _wide(steps[-1], q) * change
    q = inverse(q) * _wide(scale, q)
    for (moved, change, easy), step in zip(past, reversed(steps), strict=True):
        q += _wide(step - easy * _dot(change, q), q) * moved
    return -q


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((0, 2)).double()


def _wide(per_problem: Tensor, like: Tensor) -> Tensor:
    return per_problem.to(like.dtype)[:, None]
