"""LoRA (Hu et al., 2022): large weights stay as they are, and what is added to them has a low rank."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from selfsup.errors import UserError


class LowRank(nn.Module):
    """W -> W + B A, of which A (rank, in) starts at random and B (out, rank) at 0: at first nothing changes."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(rank, weight.shape[1]))
        self.b = nn.Parameter(torch.zeros(weight.shape[0], rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """(out, in) -> (out, in)."""
        return weight + self.b @ self.a


def add_lora(encoder: nn.Module, rank: int) -> None:
    """Freeze an encoder, and add to each linear layer that is wider than `rank` a change of that rank, to be trained.

    Raises `UserError` for an encoder without such layers.
    """
    encoder.requires_grad_(False)
    linear = [part for part in encoder.modules() if isinstance(part, nn.Linear) and min(part.weight.shape) > rank]
    if not linear:
        raise UserError(f"--lora {rank} is for encoders with linear layers wider than that, such as transformers")
    for part in linear:
        parametrize.register_parametrization(part, "weight", LowRank(part.weight, rank))


def merged_state(module: nn.Module) -> dict[str, Tensor]:
    """Return the state of a module as if it never had LoRA: the changes are added to the weights."""
    state = dict(module.state_dict())
    for name, part in module.named_modules():
        if parametrize.is_parametrized(part, "weight"):
            prefix = f"{name}." if name else ""
            state = {key: value for key, value in state.items() if not key.startswith(f"{prefix}parametrizations.")}
            state[f"{prefix}weight"] = torch.as_tensor(part.weight).detach()
    return state
