"""A queue of past outputs, to be updated in `Task.after_step` only."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Queue(nn.Module):
    """The last `size` rows of unit length that were put in; random directions until then."""

    rows: Tensor
    at: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("rows", nn.functional.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("at", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def put(self, rows: Tensor) -> Tensor:
        """Replace the oldest rows by these (B, dim); return their places (B,).

        If there are more than `size`, only the last ones are kept, so that there are `size` places.
        """
        rows = rows[-len(self.rows) :]
        place = (self.at + torch.arange(len(rows), device=rows.device)) % len(self.rows)
        self.rows[place] = rows.to(self.rows.dtype)
        self.at.copy_((self.at + len(rows)) % len(self.rows))
        return place
