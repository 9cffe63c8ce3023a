"""The heads of `metadata`: what a table says of each sample, and who predicts it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.base.distributed import global_mean
from selfsup.base.notes import say
from selfsup.data.columns import Column, digest, read_columns
from selfsup.losses import full
from selfsup.nn.heads import mlp
from selfsup.source import Source


def of_table(source: Source, table: str, asked: Sequence[str]) -> dict[str, str]:
    """Return the options of the task that follow the asked columns of a table, and say what was done to read them."""
    columns, notes = read_columns(source, table, asked)
    say(*notes)
    names = json.dumps({one.name: one.names for one in columns}, ensure_ascii=False)
    return {"column_names": names, "table_digest": digest(columns)}


class Heads(nn.Module):
    """A head for each column of `names`, none for numbers, of which the first `kept` are to be kept.

    Those are linear. The others are MLPs, whose gradient with respect to the representation is reversed.
    """

    targets: Tensor  # (N, columns) of the samples, and which of them are known; not stored
    known: Tensor

    def __init__(self, dim: int, names: Mapping[str, Sequence[str]], kept: int, hidden_dim: int) -> None:
        super().__init__()
        self.names, self.columns = names, list[Column]()
        widths = [len(own) or 1 for own in names.values()]
        self.keep = nn.ModuleList(nn.Linear(dim, width) for width in widths[:kept])
        self.suppress = nn.ModuleList(mlp(dim, hidden_dim, width) for width in widths[kept:])
        self.register_buffer("targets", torch.zeros(0, len(widths)), persistent=False)
        self.register_buffer("known", torch.zeros(0, len(widths)), persistent=False)

    def read(self, source: Source, table: str, asked: Sequence[str]) -> None:
        """Read the columns of the samples off the table."""
        self.columns, _ = read_columns(source, table, asked, self.names)
        values = torch.from_numpy(np.stack([one.scaled() for one in self.columns], 1)).to(self.targets)
        self.targets, self.known = values.nan_to_num(), values.isfinite().to(values)

    def forward(self, z: Tensor, strength: float) -> list[Tensor]:
        """(B, dim) -> what each column is, (B, names) or (B, 1), with `strength` times the gradient reversed."""
        z = full(z)
        against = (1 + strength) * z.detach() - strength * z  # its value is that of z
        return [full(head(z)) for head in self.keep] + [full(head(against)) for head in self.suppress]

    def losses(self, guesses: Sequence[Tensor], index: Tensor) -> tuple[list[Tensor], list[float], dict[str, Tensor]]:
        """Return the loss of each column over those of the samples `index` (B,) of which it is known, chance, metrics.

        Names have the cross-entropy, and their accuracy as a metric; numbers the squared error in units of their
        variance.
        """
        losses, chances, metrics = list[Tensor](), list[float](), dict[str, Tensor]()
        columns = zip(self.names.items(), guesses, self.targets[index].T, self.known[index].T, strict=True)
        for (name, names), guess, y, known in columns:
            error = F.cross_entropy(guess, y.long(), reduction="none") if names else (guess[:, 0] - y).square()
            losses.append(global_mean(error, known))
            chances.append(math.log(len(names)) if names else 1.0)
            right = ((guess.argmax(1) == y) * known).sum() / known.sum().clamp_min(1)
            metrics |= {f"{name}_accuracy": right} if names else {f"{name}_error": losses[-1].detach()}
        return losses, chances, metrics

    def captions(self, index: Tensor, guesses: Sequence[Tensor]) -> list[str]:
        """Return in words what the columns are of samples (B,), and after each the guess, if there are some."""
        found = [guess.tolist() for guess in guesses]
        told = []
        for row, number in enumerate(index.tolist()):
            words = [f"{one.name} {one.word(one.values[number])}" for one in self.columns]
            words += [f"guess {one.guessed(scores[row])}" for one, scores in zip(self.columns, found, strict=False)]
            told.append(", ".join(words))
        return told
