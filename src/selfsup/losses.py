"""Losses that tasks share: pure functions of tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(query: Tensor, key: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the cross-entropy of finding `key[i]` among all keys by `query[i]` (CPC, van den Oord et al., eq. 4).

    `query` and `key` are (B, d) and compared by their scalar product over `temperature`: normalise them for cosines.
    Every other key of the batch is a negative, so chance is ln B. Computed in float32 whatever the precision is.
    """
    logits = query.float() @ key.float().T / temperature
    return F.cross_entropy(logits, torch.arange(len(query), device=query.device))
