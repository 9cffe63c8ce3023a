"""Random numbers of a sample: functions of its key alone, the same on any device, in any batch and process.

Views with `noise=True` give each sample of a batch a key drawn from (seed, epoch, index). A task that makes its labels,
masks or corruption from these keys draws per sample, resumes exactly, does not depend on the number of workers or
processes, and draws the same again when part of a batch is recomputed.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.base.distributed import sum_over_ranks

_GOLDEN = -7046029254386353131  # 2^64 / golden ratio, signed because torch has no unsigned arithmetic
_MIX1, _MIX2 = -4658895280553007687, -7723592293110705685


def _mix(x: Tensor) -> Tensor:
    """SplitMix64's finalizer (Steele et al., 2014)."""
    x = (x ^ ((x >> 30) & ((1 << 34) - 1))) * _MIX1
    x = (x ^ ((x >> 27) & ((1 << 37) - 1))) * _MIX2
    return x ^ ((x >> 31) & ((1 << 33) - 1))


def uniform(key: Tensor, *shape: int, stream: int = 0) -> Tensor:
    """Return (B, *shape) float32 in (0, 1) for keys (B,) int64; different `stream`s are independent."""
    row = _mix(key ^ int(_mix(torch.tensor(stream + 1) * _GOLDEN)))
    bits = random_bits(row, math.prod(shape))
    return (((bits >> 41) & ((1 << 23) - 1)).float().add_(0.5) * 2.0**-23).view(len(key), *shape)


def random_bits(key: Tensor, count: int) -> Tensor:
    """Return (B, count) int64 of 64 random bits each: SplitMix64 from the keys (B,)."""
    return _mix(key[:, None] + torch.arange(1, count + 1, device=key.device) * _GOLDEN)


def normal(key: Tensor, *shape: int, stream: int = 0) -> Tensor:
    """Return (B, *shape) float32 from a standard normal."""
    return torch.special.ndtri(uniform(key, *shape, stream=stream))


def directions(key: Tensor, dim: int, count: int) -> Tensor:
    """Return unit vectors (dim, count) that follow from all keys (B,) of the batch, the same in every process."""
    return F.normalize(normal(sum_over_ranks(key.sum())[None], dim, count)[0], dim=0)


def integers(key: Tensor, high: int, *shape: int, stream: int = 0) -> Tensor:
    """Return (B, *shape) int64 in 0..high-1."""
    return (uniform(key, *shape, stream=stream) * high).long()


def shuffles(key: Tensor, count: int, stream: int = 0) -> Tensor:
    """Return (B, count) int64: a permutation of 0..count-1 for each sample."""
    return uniform(key, count, stream=stream).argsort(1)


def sample(mean: Tensor, log_variance: Tensor, key: Tensor) -> Tensor:
    """Return a draw (B, d) from normals, by the keys (B,), with a gradient to both: (B, d) each."""
    return mean + (0.5 * log_variance).exp() * normal(key, mean.shape[1])
