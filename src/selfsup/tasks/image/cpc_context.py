"""The masked convolutional context network of CPC, and its predictions of the patches below."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Predictions(nn.Module):
    """Predict the representations of patches 2 to `steps` rows down; with `all_directions` also up, left and right.

    Takes representations (B, grid², dim) and returns predictions (P, dim) and the indices of their targets (P,) in the
    batch: patch p of image b is b * grid² + p.
    """

    def __init__(self, grid: int, steps: int, dim: int, num_layers: int, all_directions: bool) -> None:
        super().__init__()
        self.grid, self.steps, directions = grid, steps, 4 if all_directions else 1
        self.context = nn.ModuleList(_Context(dim, num_layers, norms=all_directions) for _ in range(directions))
        self.predict = nn.ModuleList(nn.Conv2d(dim, (steps - 1) * dim, 1, bias=False) for _ in range(directions))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Predict down in the grid as it is, and the other directions by rotating it."""
        count = len(z) * self.grid**2
        number = torch.arange(count, device=z.device).view(-1, 1, self.grid, self.grid)
        square = z.transpose(1, 2).unflatten(2, (self.grid, self.grid))
        guesses, targets = [], []
        for rotation, (context, predict) in enumerate(zip(self.context, self.predict, strict=True)):
            guessed = predict(context(square.rot90(rotation, (2, 3)))).chunk(self.steps - 1, 1)
            for k, guess in enumerate(guessed, 2):
                guesses.append(guess[:, :, :-k].permute(0, 2, 3, 1).flatten(0, 2))
                targets.append(number.rot90(rotation, (2, 3))[:, 0, k:].flatten())
        return torch.cat(guesses), torch.cat(targets)


class _Context(nn.Module):
    """Residual blocks (B, dim, H, W) -> the same; each position sees its row and those above (Hénaff et al., A.2)."""

    def __init__(self, dim: int, num_layers: int, norms: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(dim, norms) for _ in range(num_layers))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the blocks, each of which sees one row further up."""
        for block in self.blocks:
            x = x + block(x)
        return x


class _Block(nn.Module):
    def __init__(self, dim: int, norms: bool) -> None:
        super().__init__()
        self.across = nn.Conv2d(dim, dim, (1, 3), padding=(0, 1))
        self.down = nn.Conv2d(dim, dim, (2, 1))
        self.out = nn.Conv2d(dim, dim, 1)
        self.norm = nn.LayerNorm(dim) if norms else nn.Identity()  # of each position by itself: it must not see others

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.across(self.norm(x.movedim(1, 3)).movedim(3, 1)))
        return self.out(F.relu(self.down(F.pad(x, (0, 0, 1, 0)))))
