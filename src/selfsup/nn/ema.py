"""The exponential moving average (EMA) of a module, to be updated in `Task.after_step` only."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def frozen_copy(module: M) -> M:
    """Return a copy whose parameters require no gradient."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def ema_update(ema: nn.Module, online: nn.Module, momentum: float) -> None:
    """Set ema = momentum * ema + (1 - momentum) * online, for the parameters; buffers (BatchNorm's) are not changed."""
    averages: list[Tensor] = [p.detach() for p in ema.parameters()]
    current = [p.detach() for p in online.parameters()]
    torch._foreach_lerp_(averages, current, 1 - momentum)


def cosine_schedule(start: float, end: float, progress: float) -> float:
    """Return a value that goes from `start` to `end` along half a cosine as `progress` goes from 0 to 1."""
    return (
        end - (end - start) * float(torch.cos(torch.tensor(torch.pi * min(progress, 1.0), dtype=torch.float64)) + 1) / 2
    )
