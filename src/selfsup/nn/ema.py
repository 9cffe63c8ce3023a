"""The exponential moving average (EMA) of a module, to be updated in `Task.after_step` only."""

from __future__ import annotations

import copy
import math
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
    return end - (end - start) * (math.cos(math.pi * min(progress, 1.0)) + 1) / 2


def first_momentum(steps: int) -> float:
    """Return the momentum at the start that suits a run of so many steps: 0.97 up to 1,333, 0.996 from 10,000 on.

    Between these, 1 - momentum adds up to 20 over a schedule that ends at 1: the EMA forgets its random start whatever
    the length of the run, and averages over more steps the longer it is. A faster one makes worse targets: BYOL loses
    four points with 0.9 (Grill et al., 2020, table 5a), and DINO collapses.
    """
    return 1 - min(0.03, max(0.004, 40 / max(1, steps)))


class Momentum(nn.Module):
    """The momentum of an EMA during a run: from `start` (None: `first_momentum` of the run's steps) to 1.

    Along half a cosine, or `linear`. The buffer `start_left` is the weight that the EMA still gives to what it was
    before the first step: the product of all momenta so far, 1 at first.
    """

    start_left: Tensor

    def __init__(self, start: float | None, linear: bool = False) -> None:
        super().__init__()
        self.start, self.linear = start, linear
        self.register_buffer("start_left", torch.ones(()))

    def at(self, progress: float, steps: int) -> float:
        """Return the momentum at `progress`, 0 to 1, of a run of `steps` steps."""
        start = first_momentum(steps) if self.start is None else self.start
        return start + (1 - start) * progress if self.linear else cosine_schedule(start, 1.0, progress)

    def advance(self, progress: float, steps: int) -> float:
        """Return the momentum of this step and note it in `start_left`; once a step, in `Task.after_step`."""
        momentum = self.at(progress, steps)
        self.start_left *= momentum
        return momentum

    def metrics(self) -> dict[str, Tensor]:
        """Return `start_left` for `Loss.metrics`: a copy, which later steps do not change."""
        return {"start_left": self.start_left.clone()}
