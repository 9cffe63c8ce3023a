"""The order of an epoch, any part of it without the rest: seeded permutations by position, in memory that is constant.

Up to `LARGE` samples it is `permutation`, as it always was, so that runs on small data keep their results. Beyond, an
array of all positions costs 8 bytes a sample and its shuffling seconds a step (8 GB at 10⁹), and a Feistel network
takes its place: a bijection of the grid (a, b) with a·b ≥ count, whose few points beyond `count` are walked on until
they fall inside (cycle walking; Black & Rogaway, Ciphers with arbitrary finite domains, 2002).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from selfsup.views.random import keys, mix, permutation, uniform

LARGE = 1 << 20  # samples
ROUNDS = 6
BUFFER = 4  # blocks among which samples are shuffled
_APART = 1 << 62  # numbers from here on are not those of samples


def ordered(seed: int, count: int, block: int = 1) -> Callable[[int, int, int], NDArray[np.int64]]:
    """Return the function of an epoch, start and stop that `order` is for so many samples.

    It keeps the permutations of two epochs: of this one, and of the next, which is read ahead.
    """
    if count <= LARGE and block == 1:
        whole = lru_cache(maxsize=2)(lambda epoch: permutation(seed, epoch, count))
        return lambda epoch, start, stop: whole(epoch)[start:stop]
    return lambda epoch, start, stop: places(seed, epoch, count, start, stop, block)


def order(seed: int, epoch: int, count: int, start: int, stop: int) -> NDArray[np.int64]:
    """Return which samples (stop - start,) are at these places of an epoch's order of `count` samples.

    A whole permutation is made where there are few samples: see above.
    """
    return ordered(seed, count)(epoch, start, stop)


def places(seed: int, epoch: int, count: int, start: int, stop: int, block: int = 1) -> NDArray[np.int64]:
    """Return which samples (stop - start,) are at places `start` to `stop` - 1 of a permutation of `count` samples.

    Time and memory depend on stop - start alone. With `block` > 1, for stores that read neighbours together: the
    samples are shuffled in blocks of so many consecutive ones, and then alone within buffers of 4 blocks. This is not
    uniform: what shares a buffer was drawn by blocks, so two neighbours in the data are at most 4 · block places apart
    (but for the edges of blocks), where uniform ones are count / 3 apart on average. A sample is at each place of the
    epoch with the same probability all the same, since what is left over by whole blocks is drawn anew every epoch.
    """
    at = np.arange(start, min(stop, count), dtype=np.int64)
    if block <= 1:
        return _permuted(at, count, _rounds(seed, epoch, 0))
    whole, size = count // block, block * BUFFER
    found = np.empty_like(at)
    for number in range(start // size, -(-min(stop, count) // size)):  # each buffer has an order of its own
        mine, first = at // size == number, number * size
        own = _rounds(seed, epoch, 1 + number)
        found[mine] = first + _permuted(at[mine] - first, min(size, count - first), own)
    inside = found < whole * block
    found[inside] = _permuted(found[inside] // block, whole, _rounds(seed, epoch, 0)) * block + found[inside] % block
    return (found + int(uniform(seed, epoch, np.array([_APART - 1]), 1)[0, 0] * count)) % count


def _rounds(seed: int, epoch: int, number: int) -> NDArray[np.uint64]:
    """Return the keys (ROUNDS,) of one permutation, other ones than those of any sample."""
    return keys(seed, epoch, _APART + ROUNDS * number + np.arange(ROUNDS)).view(np.uint64)


def _permuted(at: NDArray[np.int64], count: int, rounds: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return where a permutation of `count` numbers, drawn by the keys (ROUNDS,) of its rounds, takes some of them."""
    wide = math.isqrt(max(count - 1, 0)) + 1
    high = -(-count // wide)
    found = _network(at.astype(np.uint64), wide, high, rounds)
    while len(beyond := np.flatnonzero(found >= count)):
        found[beyond] = _network(found[beyond], wide, high, rounds)
    return found.astype(np.int64)


def _network(x: NDArray[np.uint64], wide: int, high: int, rounds: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return a bijection of the numbers below wide · high: halves that are added to in turn, each by the other one."""
    left, right = np.divmod(x, np.uint64(high))
    for even, odd in rounds.reshape(-1, 2):
        left = (left + mix(right ^ even) % np.uint64(wide)) % np.uint64(wide)
        right = (right + mix(left ^ odd) % np.uint64(high)) % np.uint64(high)
    return left * np.uint64(high) + right
