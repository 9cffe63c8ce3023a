"""Reused memory: fresh pages cost more than the work that is done on them."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_SMALL = 1 << 16  # bytes: below them fresh memory is as good
_SPARE = 1 << 30  # bytes that free buffers may hold

_lock = threading.Lock()
_kept: list[NDArray[np.uint8]] = []
_mine = threading.local()


def empty(shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
    """Return an uninitialised array, if possible in memory of about its size that nothing references any longer."""
    wanted = np.dtype(dtype)
    size = math.prod(shape) * wanted.itemsize
    if size < _SMALL:
        return np.empty(shape, wanted)
    step = 1 << max(size.bit_length() - 3, 12)  # within a fifth of the size, so that images share buffers
    room = -(-size // step) * step
    with _lock:
        free = 0
        for place in range(len(_kept)):
            if sys.getrefcount(_kept[place]) <= _FREE:
                if _kept[place].nbytes == room:
                    return _kept[place][:size].view(wanted).reshape(shape)
                free += _kept[place].nbytes
                if free > _SPARE:
                    del _kept[place]
                    break
        _kept.append(np.empty(room, np.uint8))
        return _kept[-1][:size].view(wanted).reshape(shape)


def scratch(name: str, count: int, dtype: DTypeLike) -> NDArray[Any]:
    """Return `count` uninitialised elements that belong to this thread and `name`, valid until asked for again."""
    held: NDArray[Any] | None = getattr(_mine, name, None)
    if held is None or len(held) < count or held.dtype != np.dtype(dtype):
        held = np.empty(count, dtype)
        setattr(_mine, name, held)
    return held[:count]


_kept.append(np.empty(0, np.uint8))
_FREE = sys.getrefcount(_kept[0])  # how many references an array has that only the list holds
_kept.clear()
