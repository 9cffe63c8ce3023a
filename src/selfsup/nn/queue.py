"""A queue of past outputs, to be updated in `Task.after_step` only."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from selfsup.losses import product


class Queue(nn.Module):
    """The last `size` rows of unit length that were put in, random directions until then, and whose they are.

    `owners` (size,): the samples of the rows, -1 where they are not told.
    """

    rows: Tensor
    owners: Tensor
    at: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("rows", nn.functional.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("owners", torch.full((size,), -1))
        self.register_buffer("at", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def put(self, rows: Tensor, owners: Tensor | None = None) -> None:
        """Replace the oldest rows by these (B, dim) of the samples `owners` (B,); of more than `size` the last ones."""
        rows = rows[-len(self.rows) :]
        place = (self.at + torch.arange(len(rows), device=rows.device)) % len(self.rows)
        self.rows[place] = rows.to(self.rows.dtype)
        self.owners[place] = -1 if owners is None else owners[-len(rows) :]
        self.at.copy_((self.at + len(rows)) % len(self.rows))

    def contrasted(self, query: Tensor, positive: Tensor, index: Tensor) -> Tensor:
        """Return the cosines (B, …, 1 + size) of queries (B, …, d) to their positives, first, and to the rows.

        Both are of unit length. A row of the query's own sample, by `index` (B,), is no negative of it: -inf.
        """
        own = index.view(-1, *[1] * (query.ndim - 1)) == self.owners
        negative = product(query, self.rows.T).masked_fill(own, -torch.inf)
        return torch.cat([(query * positive).sum(-1, keepdim=True), negative], -1)
