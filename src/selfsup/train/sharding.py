"""FSDP2 (Zhao et al., 2023; torch's `fully_shard`): weights, gradients and moments divided among the processes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from lightning_fabric import Fabric
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from selfsup.base.distributed import from_first
from selfsup.errors import UserError
from selfsup.train.recompute import blocks


def shards(world: int, timeout: timedelta) -> ModelParallelStrategy:
    """Return Fabric's strategy that gives each of `world` processes a part of the rows of every parameter.

    Each process computes the loss of its own samples, and gradients are averaged, as by DDP.
    """
    return ModelParallelStrategy(divide, world, 1, timeout=timeout)


def is_sharded(fabric: Fabric) -> bool:
    """Return whether the parameters of what is trained are divided among the processes."""
    return isinstance(fabric.strategy, ModelParallelStrategy)


def divide(module: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Divide the parameters of a module; a block of it has all of its own only while it computes.

    Those outside of blocks come and go together. Buffers stay whole, and are sent once (`tests/test_ranks.py`).
    Raises `UserError` for a parameter that has no rows.
    """
    for name, parameter in module.named_parameters():
        if not parameter.ndim:
            raise UserError(f"--shard-weights: {name} is one number, which cannot be divided; leave it out")
        parameter.data = parameter.data.contiguous()  # rows are divided, which channels last would mix
    lists = (nn.Sequential, nn.ModuleList)  # others may go through their layers, which then would not be whole
    for part in (*(part for part in dict.fromkeys(blocks(module)) if type(part) not in lists), module):
        fully_shard(part, mesh=mesh["data_parallel"])
    for buffer in module.buffers():
        buffer.data.copy_(from_first(buffer.data))
    return module


def own(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that this process has: the tensor itself unless it is divided."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor from the parts that the processes have; all of them have to ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(state: Mapping[str, Tensor], fabric: Fabric) -> dict[str, Tensor]:
    """Return whole tensors, in the first process; the others have to ask too, and get none."""
    found = {}
    for name, tensor in state.items():
        full = whole(tensor)
        if fabric.is_global_zero:
            found[name] = full
    return found


def divided_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Return the part of a whole tensor that belongs here, if `like` is divided, else the tensor; nothing is sent."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
