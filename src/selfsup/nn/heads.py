"""Heads of tasks: an MLP and the loss of a classifier."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.errors import UserError
from selfsup.nn.norm import BatchNorm
from selfsup.task import Loss


def mlp(*dims: int) -> nn.Sequential:
    """Return an MLP dims[0] -> ... -> dims[-1] with BatchNorm and ReLU between its linear layers.

    Raises `UserError` for a layer without units.
    """
    if min(dims) < 1:
        raise UserError(f"a layer of a head needs at least 1 unit, not {min(dims)}: give another --hidden-dim")
    layers: list[nn.Module] = []
    for before, after in pairwise(dims[:-1]):
        layers += [nn.Linear(before, after, bias=False), BatchNorm(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Linear(dims[-2], dims[-1]))


@torch.no_grad()
def accuracy(logits: Tensor, label: Tensor) -> Tensor:
    """Return the fraction of rows of `logits` (B, K) whose largest entry is `label` (B,); 0 without rows."""
    return (logits.argmax(1) == label).float().sum() / max(len(label), 1)


def classified(logits: Tensor, label: Tensor) -> Loss:
    """Return the cross-entropy of `label` (B,) under `logits` (B, K), and the accuracy; chance is ln K."""
    value = F.cross_entropy(logits, label)
    return Loss(value, {"accuracy": accuracy(logits, label)}, math.log(logits.shape[1]))


def each_view(module: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """(B, V, ...) -> (V, B, ...): all views in one pass, so that they share BatchNorm's statistics."""
    out = module(torch.cat(x.unbind(1)))
    return out.view(x.shape[1], len(x), *out.shape[1:])
