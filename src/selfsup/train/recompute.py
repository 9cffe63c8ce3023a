"""Activation checkpointing (Chen et al., 2016): memory for time, with the very same weights.

A block of the encoder keeps its input alone, and computes the rest again when its gradient is due.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from selfsup.train.micro import same_statistics


def recompute_blocks(encoder: nn.Module) -> int:
    """Let the blocks of an encoder compute their activations again; return how many blocks it has, 0 if it has none.

    Dropout draws the same again, and BatchNorm's running statistics are updated once.
    """
    found = list(blocks(encoder))
    for block in found:
        # a partial, not a closure: a deep copy of the encoder then runs its own blocks
        block.forward = partial(_recomputed, block)
    return len(found)


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the outermost modules, with parts of their own, that stand in a list with others of their class."""
    for child in module.children():
        several = isinstance(module, nn.Sequential | nn.ModuleList) and _alike(module, child)
        if several and next(child.children(), None) is not None:
            yield child
        else:
            yield from blocks(child)


def _alike(parent: nn.Module, child: nn.Module) -> bool:
    return sum(type(other) is type(child) for other in parent.children()) > 1


def _recomputed(block: nn.Module, *arguments: Any, **options: Any) -> Any:
    plain = partial(type(block).forward, block)
    if not torch.is_grad_enabled():
        return plain(*arguments, **options)
    norms = [part for part in block.modules() if isinstance(part, _BatchNorm)]
    return checkpoint(
        plain, *arguments, use_reentrant=False, context_fn=lambda: (nullcontext(), same_statistics(norms)), **options
    )
