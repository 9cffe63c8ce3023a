"""A timeout for work that may never end: it runs in a thread that is left behind when its time is up."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

SECONDS = 60  # counted one by one, so that the time during which a process is suspended does not count

_idle: list[_Helper] = []


def with_timeout(work: Callable[[], T]) -> T:
    """Return work(), done in another thread; raise `TimeoutError` if that takes more than `SECONDS`.

    Nothing can stop a thread in a decoder that hangs: it is left behind, and ends with its work or the process.
    """
    try:
        helper = _idle.pop()
    except IndexError:
        helper = _Helper()
        helper.start()
    helper.tasks.put(work)
    for _ in range(SECONDS):
        try:
            value, error = helper.answers.get(timeout=1)
        except Empty:
            continue
        _idle.append(helper)
        if error is None:
            return value
        try:
            raise error
        finally:
            del error  # or it would hold this frame and itself
    helper.tasks.put(None)
    raise TimeoutError


class _Helper(threading.Thread):
    def __init__(self) -> None:
        super().__init__(name="watchdog", daemon=True)
        self.tasks: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self.answers: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    def run(self) -> None:
        while (work := self.tasks.get()) is not None:
            try:
                answer: tuple[Any, BaseException | None] = work(), None
            except BaseException as error:
                answer = None, error
            self.answers.put(answer)
            del work, answer  # or the last image would stay in memory until the next one


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)  # a fork copies no threads
