"""Parts that tasks share."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


def mlp(*dims: int) -> nn.Sequential:
    """Return a perceptron dims[0] -> ... -> dims[-1] with BatchNorm and ReLU between its linear layers."""
    layers: list[nn.Module] = []
    for before, after in pairwise(dims[:-1]):
        layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Linear(dims[-2], dims[-1]))


@torch.no_grad()
def accuracy(logits: Tensor, label: Tensor) -> Tensor:
    """Return the share of rows of `logits` (B, K) whose largest entry is `label` (B,)."""
    return (logits.argmax(1) == label).float().mean()
