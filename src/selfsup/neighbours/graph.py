"""The nearest others of every row in memory, for graphs: exact, or by an inverted file of faiss for many."""

from __future__ import annotations

import importlib
import importlib.util
import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.base.notes import say

APPROXIMATE = 100_000  # samples from which on neighbours are approximate, if faiss is installed
TIMED = 20  # blocks by which the time is told that the exact neighbours of many samples take
ROWS = 128  # that are compared with all others at a time, at least: all columns are read for each product
GROUP = 64  # columns whose maximum is looked at first


def nearest_others(z: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k nearest others of each row of length 1, and their cosine, (n, k), in any order.

    Exact by blocked matrix products. Beyond 100,000 rows approximate where faiss is installed (extra `faiss`), and
    otherwise still exact; where that takes minutes, it is said how many.
    """
    many = len(z) > APPROXIMATE and importlib.util.find_spec("faiss")
    return approximate_others(z, k) if many else exact_others(z, k)


def exact_others(z: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k nearest others of each row of length 1, and their cosine, (n, k), in any order.

    The k largest numbers of a row lie in the k groups of columns with the largest maxima: two quick passes.
    """
    n = len(z)
    groups = -(-n // GROUP)
    columns = F.pad(z, (0, 0, 0, groups * GROUP - n)).T.contiguous()
    block = max(ROWS, 2**22 // (groups * GROUP))
    room = torch.empty(block * groups * GROUP)
    index, cosine = torch.empty(n, k, dtype=torch.int64), torch.empty(n, k)
    began = time.monotonic()
    for start in range(0, n, block):
        if n > APPROXIMATE and start == TIMED * block:
            _say_minutes((time.monotonic() - began) / start * n / 60, n)
        rows = torch.arange(start, min(start + block, n))
        similar = torch.mm(z[rows], columns, out=room[: len(rows) * groups * GROUP].view(len(rows), -1))
        similar[rows - start, rows] = -2
        similar[:, n:] = -3
        grouped = similar.view(len(rows), groups, GROUP)
        best = grouped.amax(2).topk(min(k, groups)).indices
        near = grouped.gather(1, best[..., None].expand(-1, -1, GROUP)).flatten(1)
        cosine[rows], place = near.topk(k)
        index[rows] = best.gather(1, place // GROUP) * GROUP + place % GROUP
    return index, cosine


def _say_minutes(minutes: float, n: int) -> None:
    if minutes > 1:
        say(
            f"the nearest neighbours of {n:,} samples take about {minutes:.0f} minutes; approximate ones take a "
            "small part of that (pip install 'selfsup[faiss]'), and fewer samples less"
        )


def approximate_others(z: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return about what `exact_others` does, in much less time: an inverted file of faiss, 64 of 4 √n lists read."""
    faiss: Any = importlib.import_module("faiss")
    rows = z.numpy()
    lists = int(4 * len(rows) ** 0.5)
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(rows.shape[1]), rows.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    index.train(rows[:: max(1, len(rows) // (50 * lists))])
    index.add(rows)
    index.nprobe = 64
    cosine, found = (torch.from_numpy(part) for part in index.search(rows, k + 1))
    own = (found == torch.arange(len(rows))[:, None]) | (found < 0)
    cosine = cosine.masked_fill(own, -2)
    best = cosine.topk(k)
    return found.clamp_min(0).gather(1, best.indices), best.values
