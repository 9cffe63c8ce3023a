"""L2-SP (Li et al., 2018): an encoder that begins trained is drawn back to the weights that it began with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Anchor:
    """The weights of an optimizer's groups of the `encoder` when this is made, and the pull towards them.

    The paper adds α/2 · ‖w - w₀‖² to the loss. Here the pull is apart from the gradient, as AdamW's weight decay is, so
    that no moment rescales it: w ← w + lr · strength · (w₀ - w) after each step.

    Args:
        optimizer: with groups by `child` of the task, as `train.optim.build_optimizer` makes them.
        strength: α, in [0, inf).
    """

    def __init__(self, optimizer: torch.optim.Optimizer, strength: float) -> None:
        self.strength = strength
        self.groups: list[tuple[dict[str, Any], list[Tensor]]] = [
            (group, [parameter.detach().clone() for parameter in group["params"]])
            for group in optimizer.param_groups
            if group["child"] == "encoder"
        ]

    @torch.no_grad()
    def pull(self) -> None:
        """Move the weights towards where they began, in proportion to the learning rate of their group."""
        for group, start in self.groups:
            torch._foreach_lerp_(group["params"], start, min(1.0, group["lr"] * self.strength))
