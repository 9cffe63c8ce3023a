"""Timeouts for work that may never end: in a thread that is left behind when its time is up, or in this one."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
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


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raise `TimeoutError` in the block after some seconds, in which the process was not suspended.

    The block stays in this thread, as what draws wants; in another one than the main one it is not limited. Nor is what
    never comes back to Python.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    began, ticks = time.monotonic(), 0

    def tick(number: int, frame: object) -> None:
        nonlocal ticks
        ticks += 1
        if ticks >= seconds:
            raise TimeoutError(f"no answer in {seconds} s")

    handler = signal.signal(signal.SIGALRM, tick)
    left, interval = signal.setitimer(signal.ITIMER_REAL, 1, 1)
    try:
        yield
    finally:
        rest = max(left - (time.monotonic() - began), 1e-3) if left else 0.0
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, rest, interval)


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
