"""SIGINT, SIGTERM and SIGUSR1: finish the step, save, stop; a second one stops at once.

SIGUSR1 is what schedulers are told to send some time before the end (`sbatch --signal`).
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from selfsup.base.ranks import launched

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Interrupted(Exception):
    """A run that was told to stop and saved itself; the same command resumes it."""

    def __init__(self, number: int, step: int, steps: int, folder: Path | None) -> None:
        self.number = number
        where = (
            f"saved in {folder}; run the same command to resume" if folder else "nothing was saved: it has no folder"
        )
        super().__init__(f"stopped at step {step} of {steps} by {signal.Signals(number).name}: {where}")


@dataclass
class Interruption:
    """`signal` is 0 until one arrives."""

    signal: int = 0


@contextmanager
def signals() -> Iterator[Interruption]:
    """Note these signals instead of dying of them. In a thread other than the main one nothing is changed.

    Under a launcher of several processes a second signal is an echo: the launcher passes on what the terminal has
    already sent, and kills processes that do not end in time.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return

    def note(number: int, frame: FrameType | None) -> None:
        interruption.signal = number
        if not several:
            signal.signal(number, signal.SIG_DFL)

    several = launched().world > 1
    before = {number: signal.signal(number, note) for number in STOPS}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
