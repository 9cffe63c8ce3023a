"""What tasks that mask tubes of a clip ask of their encoder."""

from __future__ import annotations

import torch
from torch import Tensor

from selfsup.errors import UserError


def check_tubes(encoder: object, mask_ratio: float) -> tuple[int, int, int]:
    """Return the times and the patches of each time of an encoder, and how many of these are masked.

    Raises `UserError` for an encoder without tubelets, and where none or all would be masked.
    """
    grid = getattr(encoder, "grid", 0)
    if not isinstance(grid, tuple):
        raise UserError("this task masks tubes of a clip, which needs a transformer over tubelets: --encoder vit-clip")
    patches = grid[1] * grid[2]
    masked = int(mask_ratio * patches)
    if not 0 < masked < patches:
        raise UserError(f"--mask-ratio {mask_ratio} masks {masked} of {patches} tubes: give another, such as 0.75")
    return grid[0], patches, masked


def everywhere(patches: Tensor, times: int, count: int) -> Tensor:
    """Return the numbers (B, times · K) of the cubes of patches (B, K), of `count`, at all times."""
    start = count * torch.arange(times, device=patches.device)
    return (patches[:, None] + start[:, None]).flatten(1)
