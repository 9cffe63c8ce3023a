"""Test items that are also among the training items: each one inflates every result."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from selfsup.evaluation.knn import neighbours
from selfsup.evaluation.rows import Features, as_matrix

Item = bytes | NDArray[np.generic]


def same_bytes(train: Iterable[Item], test: Iterable[Item]) -> NDArray[np.int64]:
    """Find the test items whose raw bytes (and, of an array, shape) some training item also has.

    Only exact copies are found; an image that was saved again differs in its bytes. Each item is read once, and 16
    bytes of it are kept.

    Returns:
        Pairs (p, 2) of test number and first such training number; p is the number of test items concerned.
    """
    first: dict[bytes, int] = {}
    for i, item in enumerate(train):
        first.setdefault(_digest(item), i)
    pairs = [(i, first[digest]) for i, digest in enumerate(map(_digest, test)) if digest in first]
    return np.array(pairs, np.int64).reshape(-1, 2)


def same_features(train: Features, test: Features, *, above: float = 0.9999) -> NDArray[np.int64]:
    """Find the test items whose features are almost those of some training item.

    By cosine after the training mean is subtracted, without which all features with a large common mean look the
    same. It also finds copies that were saved again, cropped or rotated, as far as the encoder ignores that: they are
    candidates to look at, not a proof. If most items are found, the encoder has collapsed.

    Args:
        train: (n, d).
        test: (m, d).
        above: two items with at least this cosine count as the same.

    Returns:
        Pairs (p, 2) of test number and most similar training number.
    """
    gallery = as_matrix(train, "the training features")
    mean = gallery.mean(0)
    index, similarity = neighbours(as_matrix(test, "the test features") - mean, gallery - mean, 1)
    found = (similarity[:, 0] >= above).cpu().numpy()
    pairs: NDArray[np.int64] = np.stack([np.flatnonzero(found), index[:, 0].cpu().numpy()[found]], 1)
    return pairs


def _digest(item: Item) -> bytes:
    if isinstance(item, bytes):
        return hashlib.blake2b(item, digest_size=16).digest()
    head = f"{item.dtype}{item.shape}".encode()
    return hashlib.blake2b(head + item.tobytes(), digest_size=16).digest()
