"""Exact nearest neighbours by cosine, of blocks that come one after the other: from memory or from a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Found = tuple[NDArray[np.int64], NDArray[np.float32]]  # rows and cosines (m, k), most similar first


class Rows(Protocol):
    """Rows that are read in blocks: a `VectorFile`, or `Vectors`."""

    def __len__(self) -> int: ...
    def vectors(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield the number of the first row and the vectors (b, d) of each block."""
        ...


def nearest_in_blocks(
    queries: Tensor, blocks: Iterable[tuple[int, Tensor]], k: int, *, rows: int = 512
) -> tuple[Tensor, Tensor]:
    """Find the k most similar rows of each query, by cosine, by blocked matrix products on the device of the blocks.

    A row of zeros has the similarity 0 to everything.

    Args:
        queries: (m, d), of any length.
        blocks: the number of the first row, and rows (b, d), of each block.
        k: how many.
        rows: queries at a time.

    Returns:
        Indices (m, k) int64 and similarities (m, k) float32 in [-1, 1], most similar first; the index is -1 where there
        are fewer than k rows.
    """
    indices = torch.full((len(queries), k), -1, dtype=torch.int64)
    similarities = torch.full((len(queries), k), -torch.inf)
    room = torch.empty(0)
    for start, x in blocks:
        part = F.normalize(x).T
        if room.numel() < min(rows, len(queries)) * len(x):  # fresh memory for each product costs a tenth
            room = torch.empty(min(rows, len(queries)) * len(x), device=x.device)
            indices, similarities = indices.to(x.device), similarities.to(x.device)
        for some in (slice(i, i + rows) for i in range(0, len(queries), rows)):
            query = F.normalize(queries[some].to(x.device))
            similar = torch.mm(query, part, out=room[: len(query) * len(x)].view(len(query), -1))
            value, index = similar.topk(min(k, len(x)))
            best, place = torch.cat([similarities[some], value], 1).topk(k)
            indices[some] = torch.cat([indices[some], index + start], 1).gather(1, place)
            similarities[some] = best
    return indices, similarities.clamp_(-1, 1)


def search_rows(where: Rows, queries: NDArray[np.float32], k: int) -> Found:
    """Return the rows (m, k) nearest to each query (m, d), and the cosines: exactly, in one pass over the rows."""
    blocks = ((start, torch.tensor(x)) for start, x in where.vectors())
    rows, cosines = nearest_in_blocks(torch.from_numpy(queries), blocks, min(k, len(where)))
    return by_row(rows.numpy(), cosines.numpy())


def by_row(rows: NDArray[np.int64], cosines: NDArray[np.float32]) -> Found:
    """Return the same in descending order of the cosine, equal ones in the order of their rows."""
    order = np.lexsort((rows, -cosines), axis=1)
    return np.take_along_axis(rows, order, 1), np.take_along_axis(cosines, order, 1)
