"""A module whose parameters are constants: for the loss of a player who must not train its opponent."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.func import functional_call


def detached(module: nn.Module, *inputs: Any) -> Any:
    """Return module(*inputs); gradients pass through it to the inputs, and none reaches its parameters."""
    return functional_call(module, {key: p.detach() for key, p in module.named_parameters()}, inputs)
