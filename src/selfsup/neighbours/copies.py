"""Near copies in a very large pool: pairs of rows above a cosine, and the groups that such pairs connect.

As DINOv2 removes them (Oquab et al., 2024, appendix A): each row is compared with its nearest neighbours, pairs above a
threshold are connected, and one row of each connected group is kept, here the first. Their encoder was made to find
copies (SSCD), with which they take 0.6; which cosine is a copy depends on the encoder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from selfsup.data.vectors import Vectors
from selfsup.errors import UserError
from selfsup.neighbours.exact import nearest_in_blocks
from selfsup.neighbours.index import Index, unit_rows

NEAREST = 32  # rows that each is compared with
ROUNDING, HALF = 1e-6, 5e-4  # of a cosine in float32, and with vectors in float16
PROBE = 8  # lists that are read: copies lie in the list of their original, or near it
COMPARED = 200_000  # rows of which all pairs are compared
LINKS = 1 << 22  # pairs in memory

Pairs = NDArray[np.int64]  # (p, 2), the smaller row first


def near_copies(vectors: Vectors, where: Vectors | Index, above: float, done: Callable[[int], None]) -> Pairs:
    """Return (p, 2): the row that is kept of a group of near copies, and each other row of it, once, ascending.

    By an approximate index where there is one; otherwise all pairs are compared. `done` is called with the number of
    rows of each block. Raises `UserError` for more than 200,000 rows without an approximate index.
    """
    approximate = isinstance(where, Index) and where.approximate
    if not approximate and len(vectors) > COMPARED:
        raise UserError(
            f"near copies among {len(vectors):,} vectors are found by an approximate index: give "
            f"`selfsup index {vectors.path} --approximate -o index/`, and curate index/"
        )
    links = np.empty((0, 2), np.int64)
    for start, rows, cosines in _neighbours(vectors, where if approximate else None):
        own = np.arange(start, start + len(rows))[:, None]
        i, j = np.nonzero((cosines >= above - (HALF if approximate else ROUNDING)) & (rows != own) & (rows >= 0))
        pairs = np.sort(np.stack([i + start, rows[i, j]], 1), 1)
        links = np.concatenate([links, pairs])
        if len(links) > LINKS:
            links = connect(links)
        done(len(rows))
    return connect(links)


def connect(links: Pairs) -> Pairs:
    """Return each row that pairs connect with a smaller one, beside the smallest that they connect it with."""
    rows, places = np.unique(links, return_inverse=True)
    i, j = places.reshape(-1, 2).T
    graph = sparse.coo_array((np.ones(len(i), bool), (i, j)), shape=(len(rows), len(rows)))
    _, group = connected_components(graph, directed=False)
    first = rows[np.unique(group, return_index=True)[1]][group] if len(rows) else rows
    return np.stack([first, rows], 1)[first != rows]


def _neighbours(
    vectors: Vectors, index: Vectors | Index | None
) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.float32]]]:
    """Yield the first row of a block, and the nearest rows (b, k) of its rows, themselves included, with cosines."""
    if isinstance(index, Index):
        for start, x in vectors.vectors():
            yield start, *index.search(x, NEAREST, PROBE)
        return
    z = torch.from_numpy(np.concatenate([unit_rows(x) for _, x in vectors.vectors()]))
    for start in range(0, len(z), 4096):
        rows, cosines = nearest_in_blocks(z[start : start + 4096], [(0, z)], min(NEAREST, len(z)))
        yield start, rows.numpy(), cosines.numpy()
