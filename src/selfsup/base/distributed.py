"""Communication between processes: each function is a no-op in one process, and gives N the gradient of one.

A process has rows rank::world of the global batch, and DDP averages the processes' gradients. So a loss is exact if it
is the mean over the process's own samples (`global_mean` where their number differs between processes), or if every
process computes the same loss of the global batch with `gather`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather(x: Tensor) -> Tensor:
    """(B, ...) of each process -> (B * world, ...) in the order of the global batch, the same in every process.

    Gradients are exact if every process computes the same loss from it.
    """
    return x if world_size() == 1 else _Gather.apply(x)


def sum_over_ranks(x: Tensor) -> Tensor:
    """Return the sum of a tensor over the processes; its gradient is the sum of theirs."""
    return x if world_size() == 1 else _Sum.apply(x)


def from_first(x: Tensor) -> Tensor:
    """Return the first process's tensor, in every process."""
    if world_size() > 1:
        x = x.contiguous()
        dist.broadcast(x, 0)
    return x


def global_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean of the values over all processes' samples; 0 where the weights sum to 0.

    Each process returns its own part, scaled so that the average over the processes is the mean of the global batch.
    """
    total = sum_over_ranks(weights.detach().sum().to(values.dtype))
    return (values * weights).sum() * world_size() / total.clamp_min(torch.finfo(values.dtype).tiny)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.stack(parts, 1).flatten(0, 1)  # the loader deals samples to the processes in turn

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0][dist.get_rank() :: dist.get_world_size()] * dist.get_world_size()


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].clone()
        dist.all_reduce(grad)
        return grad
