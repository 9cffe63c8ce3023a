"""Calls of a module with constant parameters: for an adversarial loss that must not train the opponent."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.func import functional_call


def detached(module: nn.Module, *inputs: Any) -> Any:
    """Return module(*inputs); gradients reach the inputs, but not the module's parameters."""
    return functional_call(module, {key: p.detach() for key, p in module.named_parameters()}, inputs)
