"""Turns at torch's one generator: work that seeds it and draws from it, in whichever thread, is not interrupted."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_turn = threading.RLock()


@contextmanager
def own_turn() -> Iterator[None]:
    """Keep other threads from their turns: two trainings in one process draw what each of them alone would draw."""
    with _turn:
        yield


def _renew() -> None:
    global _turn
    _turn = threading.RLock()  # the thread that held it was not copied


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
