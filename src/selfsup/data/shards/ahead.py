"""Reads that are begun before their results are asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from selfsup.source import Broken

WAITING = 1 << 29  # bytes that were begun and not asked for yet: beyond them nothing more is begun


class Ahead:
    """Images by their places, fetched in groups by `requests` threads that end with the process.

    `fetch` returns the bytes of a group of places, `size` those of one in advance. The error of a group is raised where
    one of it is asked for, and whatever has not begun by then is let go: a store that is gone is not asked a thousand
    times before the process can end.
    """

    def __init__(
        self, fetch: Callable[[Sequence[int]], dict[int, bytes]], size: Callable[[int], int], requests: int
    ) -> None:
        self._fetch, self._size, self._lock = fetch, size, threading.Lock()
        self._pool = ThreadPoolExecutor(requests, thread_name_prefix="ahead")
        self._coming: dict[int, Future[dict[int, bytes]]] = {}
        self._bytes = 0
        self._failed: Exception | None = None

    def begin(self, places: Iterable[int], groups: Callable[[list[int]], Iterable[list[int]]]) -> None:
        """Begin to fetch those of the places that nobody has begun, in these groups, and return at once."""
        with self._lock:
            for group in groups([place for place in dict.fromkeys(places) if place not in self._coming]):
                if self._bytes > WAITING:
                    return
                future = self._pool.submit(self._guarded, group)
                self._coming |= dict.fromkeys(group, future)
                self._bytes += sum(map(self._size, group))

    def take(self, place: int) -> bytes | None:
        """Return the bytes of a place that was begun, once; None for any other."""
        with self._lock:
            coming = self._coming.pop(place, None)
            if coming is None:
                return None
            self._bytes -= self._size(place)
        return coming.result()[place]

    def _guarded(self, group: Sequence[int]) -> dict[int, bytes]:
        if self._failed is not None:
            raise self._failed
        try:
            return self._fetch(group)
        except Exception as error:
            self._failed = self._failed if isinstance(error, Broken) else error
            raise
