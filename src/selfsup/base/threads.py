"""The same work for many items in threads, beside a bar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from selfsup.base.processes import available_cores
from selfsup.base.progress import counting

T = TypeVar("T")
R = TypeVar("R")


def side_by_side(what: str, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Return the result for each item, in order; as many threads as cores. After an error nothing else begins."""
    found = []
    with counting(what, len(items)) as advance, ThreadPoolExecutor(available_cores()) as pool:
        try:
            for result in pool.map(work, items):
                found.append(result)
                advance(1)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return found
