"""What tasks that mask tubes of a clip ask of their encoder."""

from __future__ import annotations

import torch
from torch import Tensor

from selfsup.errors import UserError


def check_tubes(encoder: object) -> tuple[int, int]:
    """Return the times and the patches of each time of an encoder; raise `UserError` for one without tubelets."""
    grid = getattr(encoder, "grid", 0)
    if not isinstance(grid, tuple):
        raise UserError("this task masks tubes of a clip, which needs a transformer over tubelets: --encoder vit-clip")
    return grid[0], grid[1] * grid[2]


def everywhere(patches: Tensor, times: int, count: int) -> Tensor:
    """Return the numbers (B, times · K) of the cubes of patches (B, K), of `count`, at all times."""
    start = count * torch.arange(times, device=patches.device)
    return (patches[:, None] + start[:, None]).flatten(1)
