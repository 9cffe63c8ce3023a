"""Large buffers that are used again as soon as nobody holds a tensor on them: fresh memory costs a fault a page."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_SMALL = 1 << 20  # bytes below which fresh memory is as good

_lock = threading.Lock()
_kept: list[NDArray[Any]] = []


def _is_free(place: int) -> bool:
    return sys.getrefcount(_kept[place]) <= _FREE


def empty(shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
    """Return an uninitialised array; a large one that is no longer referenced is reused, others of its kind freed."""
    wanted = np.dtype(dtype)
    if wanted.itemsize * int(np.prod(shape)) < _SMALL:
        return np.empty(shape, wanted)
    with _lock:
        free = [place for place in range(len(_kept)) if _is_free(place)]
        for place in free:
            if _kept[place].dtype == wanted and _kept[place].shape == tuple(shape):
                return _kept[place]
        for place in reversed(free[: max(0, len(free) - 8)]):  # shapes that are no longer asked for
            del _kept[place]
        _kept.append(np.empty(shape, wanted))
        return _kept[-1]


_kept.append(np.empty(0))
_FREE = sys.getrefcount(_kept[0])  # how many references an array has that only the list holds
_kept.clear()
