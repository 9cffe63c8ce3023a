"""The masked convolutional network of CPC, and what it predicts: what lies above tells what comes below."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Predictions(nn.Module):
    """Predict representations of patches 2 to `ahead` rows further down, `everywhere` also further up, left and right.

    Takes representations (B, grid², dim) and returns predictions (P, dim), and the numbers of what they predict (P,),
    which count through the batch: patch p of image b is b * grid² + p.
    """

    def __init__(self, grid: int, ahead: int, dim: int, depth: int, everywhere: bool) -> None:
        super().__init__()
        self.grid, self.ahead, directions = grid, ahead, 4 if everywhere else 1
        self.context = nn.ModuleList(_Context(dim, depth, norms=everywhere) for _ in range(directions))
        self.predict = nn.ModuleList(nn.Conv2d(dim, (ahead - 1) * dim, 1, bias=False) for _ in range(directions))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Each direction is the one down, in a square that is turned."""
        count = len(z) * self.grid**2
        number = torch.arange(count, device=z.device).view(-1, 1, self.grid, self.grid)
        square = z.transpose(1, 2).unflatten(2, (self.grid, self.grid))  # type: ignore[no-untyped-call]
        guesses, targets = [], []
        for turns, (context, predict) in enumerate(zip(self.context, self.predict, strict=True)):
            guessed = predict(context(square.rot90(turns, (2, 3)))).chunk(self.ahead - 1, 1)
            for k, guess in enumerate(guessed, 2):
                guesses.append(guess[:, :, :-k].permute(0, 2, 3, 1).flatten(0, 2))
                targets.append(number.rot90(turns, (2, 3))[:, 0, k:].flatten())
        return torch.cat(guesses), torch.cat(targets)


class _Context(nn.Module):
    """Residual blocks (B, dim, H, W) -> the same; a place sees its own row and those above (Hénaff et al., A.2)."""

    def __init__(self, dim: int, depth: int, norms: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(dim, norms) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        """Each block sees one row further up."""
        for block in self.blocks:
            x = x + block(x)
        return x


class _Block(nn.Module):
    def __init__(self, dim: int, norms: bool) -> None:
        super().__init__()
        self.across = nn.Conv2d(dim, dim, (1, 3), padding=(0, 1))
        self.down = nn.Conv2d(dim, dim, (2, 1))
        self.out = nn.Conv2d(dim, dim, 1)
        self.norm = nn.LayerNorm(dim) if norms else nn.Identity()  # of each place alone: it must not see others

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.across(self.norm(x.movedim(1, 3)).movedim(3, 1)))
        added: Tensor = self.out(F.relu(self.down(F.pad(x, (0, 0, 1, 0)))))
        return added
