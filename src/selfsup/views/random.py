"""Random numbers as a function of (seed, epoch, index): no state, so that any worker draws the same for a sample."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele et al., 2014): a bijection in which every input bit flips half of the output."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def keys(seed: int, epoch: int, index: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (B,) numbers of 64 random bits, one for each sample."""
    with np.errstate(over="ignore"):
        key = mix(np.array([seed], dtype=np.int64).view(np.uint64) + _GOLDEN)
        key = mix((key ^ np.uint64(epoch)) + _GOLDEN)
        return mix((key ^ index.astype(np.uint64)) + _GOLDEN).view(np.int64)


def uniform(
    seed: int, epoch: int, index: NDArray[np.int64], count: int, first: int | NDArray[np.int64] = 0
) -> NDArray[np.float64]:
    """Return (B, count) numbers in [0, 1), independent for every seed, epoch, index (B,) and column.

    The columns count from `first`, a number or one for each row.
    """
    return (random_bits(seed, epoch, index, count, first) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def random_bits(
    seed: int, epoch: int, index: NDArray[np.int64], count: int, first: int | NDArray[np.int64] = 0
) -> NDArray[np.uint64]:
    """Return (B, count) numbers of 64 random bits, from the same columns as `uniform`."""
    with np.errstate(over="ignore"):
        rows = keys(seed, epoch, index).view(np.uint64)
        columns = np.add.outer(np.atleast_1d(first), np.arange(1, count + 1)).astype(np.uint64)
        return mix(rows[:, None] + columns * _GOLDEN)


def permutation(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """Return the order of an epoch."""
    return np.random.Generator(np.random.Philox(key=[seed % 2**64, epoch])).permutation(count)
