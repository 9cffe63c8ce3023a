"""The colours of patches: what patch features have to beat."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NAME, WITH_PLACE = "raw colours", "raw colours + place"
ABOUT = {
    NAME: "mean and std of each channel in a patch, of the size of the encoder's",
    WITH_PLACE: "these, and where the patch is",
}


class RawColours(nn.Module):
    """(B, C, H, W) -> (B, 2 C, h, w): mean and std of each channel in each patch; with `place` also its y and x."""

    def __init__(self, grid: Sequence[int], place: bool = False) -> None:
        super().__init__()
        self.grid, self.place = (grid[0], grid[1]), place

    def forward(self, x: Tensor) -> Tensor:
        """Return features."""
        mean, square = (F.adaptive_avg_pool2d(part, self.grid) for part in (x, x.square()))
        found = [mean, (square - mean.square()).clamp_min(0).sqrt()]
        if self.place:
            y, x = torch.meshgrid(*(torch.linspace(-1, 1, side, device=x.device) for side in self.grid), indexing="ij")
            found.append(torch.stack([y, x]).expand(len(mean), -1, -1, -1))
        return torch.cat(found, 1)
