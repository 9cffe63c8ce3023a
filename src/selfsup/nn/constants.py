"""Cached constants on the device that needs them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from selfsup.spec import ImageSpec


def constant(values: Any, like: Tensor) -> Tensor:
    """Return (nested) tuples of numbers as a tensor with the dtype and device of `like`; it is cached: never change it.

    Copying numbers to a GPU at every step would make it wait for the CPU.
    """
    dtype = like.dtype if like.is_floating_point() else torch.float32
    return _constant(values, dtype, like.device)


@lru_cache(maxsize=256)
def _constant(values: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)


def mean_std(spec: ImageSpec, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the standard deviation (C, 1, 1) of the normalization, on the device of `like`."""
    return constant(tuple(spec.mean), like).view(-1, 1, 1), constant(tuple(spec.std), like).view(-1, 1, 1)
