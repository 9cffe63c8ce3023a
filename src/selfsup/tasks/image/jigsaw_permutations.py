"""Sets of permutations with large Hamming distances: the classes of a jigsaw puzzle."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from selfsup.errors import UserError

Permutations = NDArray[np.int64]  # (K, n): row k puts item p[k, i] in place i


def permutation_set(name: str, items: int = 9) -> Permutations:
    """Return a set by name: a number of permutations, chosen by `greedy`, or one of `OPTIMAL` for 9 items.

    Raises `UserError` for any other name, and for more permutations than exist.
    """
    if name in OPTIMAL:
        if items != 9:
            raise UserError(f"the set {name} permutes 9 tiles, not {items}: give a number of permutations instead")
        return OPTIMAL[name]()
    largest = len(_first_fixed(items)) * items
    if not name.isdecimal() or not 2 <= int(name) <= largest:
        raise UserError(
            f"--permutations must be a number from 2 to {largest:,}, or for 9 tiles {', '.join(OPTIMAL)}, not {name!r}"
        )
    return greedy(int(name), items)


@cache
def greedy(count: int, items: int = 9, seed: int = 0) -> Permutations:
    """Return permutations, each with the largest mean Hamming distance to those before (Noroozi & Favaro, 2016).

    A permutation is chosen together with all cyclic shifts of its values, which differ from one another in every place.
    After such a block every value has been in every place equally often, so that all remaining permutations have the
    same mean distance. Among them, the one whose block has the largest minimum distance to all before is chosen; ties
    are broken by a random order.
    """
    fixed = np.random.default_rng(seed).permutation(_first_fixed(items))
    columns = np.ascontiguousarray(fixed.T)
    chosen = [0]
    most_alike = np.zeros(len(fixed), dtype=np.int64)  # most places in which any of its shifts equals a chosen one
    while len(chosen) * items < count:
        shifts = 1 << 4 * ((np.arange(items) - fixed[chosen[-1], :, None]) % items)  # by place and value
        alike = sum(column_shifts[column] for column_shifts, column in zip(shifts, columns, strict=True))
        for shift in range(items):  # 4 bits of each sum count the equal places of one shift
            np.maximum(most_alike, alike >> 4 * shift & 15, out=most_alike)
        chosen.append(int(most_alike.argmin()))
    blocks = (fixed[chosen][:, None] + np.arange(items)[:, None]) % items
    return _read_only(blocks.reshape(-1, items)[:count])


@cache
def agl9() -> Permutations:
    """Return x -> ax + b over GF(9), a ≠ 0: 72 permutations, 8 or more apart."""
    add, multiply = _field9()
    return _read_only(add[multiply[1:, None], np.arange(9)[:, None]].reshape(-1, 9))


@cache
def pgl8() -> Permutations:
    """Return x -> (ax + b) / (cx + d) on GF(8) and infinity, ad ≠ bc: 504 permutations, 7 or more apart."""
    multiply = _field8()
    a, b, c, d = np.indices((8, 8, 8, 8)).reshape(4, -1, 1)
    inverse = np.argmax(multiply == 1, axis=1)
    over, under = (np.concatenate([multiply[m, np.arange(8)] ^ n, m], 1) for m, n in ((a, b), (c, d)))
    image = np.where(under == 0, 8, multiply[over, inverse[under]])
    return _read_only(np.unique(image[(multiply[a, d] != multiply[b, c])[:, 0]], axis=0))


@cache
def pgammal8() -> Permutations:
    """Return those of `pgl8`, also composed with x -> x² and x -> x⁴: 1,512 permutations, 6 or more apart."""
    square = np.append(np.diagonal(_field8()), 8)
    return _read_only(np.concatenate([pgl8(), pgl8()[:, square], pgl8()[:, square[square]]]))


OPTIMAL: dict[str, Callable[[], Permutations]] = {"agl9": agl9, "pgl8": pgl8, "pgammal8": pgammal8}


def _field9() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the tables of sums and products (9, 9) of GF(9): x + iy with i² = -1 over GF(3), coded as x + 3y."""
    x, y = (part[:, None] for part in (np.arange(9) % 3, np.arange(9) // 3))
    return (x + x.T) % 3 + 3 * ((y + y.T) % 3), (x * x.T - y * y.T) % 3 + 3 * ((x * y.T + y * x.T) % 3)


def _field8() -> NDArray[np.int64]:
    """Return the table of products (8, 8) of GF(8): polynomials over GF(2) modulo x³ + x + 1, as bits."""
    x = np.arange(8)
    product = np.zeros((8, 8), dtype=np.int64)
    for bit in range(3):
        np.bitwise_xor(product, (x[:, None] << bit) * (x >> bit & 1), out=product)
    for bit in (4, 3):
        np.bitwise_xor(product, (product >> bit & 1) * (0b1011 << bit - 3), out=product)
    return product


@cache
def _first_fixed(items: int) -> Permutations:
    """Return the permutations that leave item 0 in place."""
    if items > 9:
        raise UserError(f"{items} tiles have too many permutations to choose from: at most 9 tiles")
    rest = np.array(list(permutations(range(1, items))), dtype=np.int64)
    return np.insert(rest, 0, 0, axis=1)


def _read_only(perms: Permutations) -> Permutations:
    perms = np.ascontiguousarray(perms, dtype=np.int64)
    perms.setflags(write=False)  # the cache shares it
    return perms
