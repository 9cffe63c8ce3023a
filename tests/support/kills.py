"""Commands that are killed and run again, in copies of a process that has imported everything already."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from support.steady import quick_scratch, steady

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "selfsup.commands.pretrain",
        "selfsup.commands.compare",
        "selfsup.comparison.drawing",
        "selfsup.comparison.tournament",
        "selfsup.tasks",
        "selfsup.views.image.kernel",
        "tensorboard",
        "timm",
        "tyro",
    ]
)


def _narrow() -> None:
    from selfsup.encoders.image.convnet import ConvNet

    ConvNet.__init__.__defaults__ = (32,)  # type: ignore[misc]  # as in the tests: see conftest.py


def _run(words: Sequence[str], pause: float) -> None:
    """Run a command that saves after every step and pauses there; the plan of `compare` does not depend on speed."""
    import selfsup.train.fit as fit
    from selfsup.cli import main
    from selfsup.tasks.image.rotation import Rotation

    _narrow()
    fit.SAVE_SECONDS, fit.SAVE_SHARE = 0.0, 1e9
    steady(setattr)
    quick_scratch(setattr)
    if pause:
        Rotation.after_step = lambda task: time.sleep(pause)  # type: ignore[method-assign]
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.argv = ["selfsup", *words]
    sys.exit(main())


def run(words: Sequence[str]) -> None:
    """Run a command to its end."""
    process = PROCESSES.Process(target=_run, args=(words, 0.0))
    process.start()
    process.join()
    assert process.exitcode == 0


def kill_while(words: Sequence[str], logs: Callable[[], list[Path]], delays: Sequence[float], pause: float) -> int:
    """Run a command again and again, and kill each once it has made two steps and a delay; return the steps made."""

    def logged() -> int:
        return sum(path.read_text().count("\n") for path in logs())

    made = 0
    for delay in delays:
        process = PROCESSES.Process(target=_run, args=(words, pause))
        process.start()
        while logged() < made + 2 and process.exitcode is None:  # until a checkpoint is newer than the last kill
            time.sleep(0.01)
        time.sleep(delay)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        made = logged()
    return made


def _tell(words: Sequence[str], told: Connection) -> None:
    from selfsup.cli import main

    _narrow()
    os.dup2(told.fileno(), 2)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    sys.argv = ["selfsup", *words]
    sys.exit(main())


class Command:
    """A command that runs until it gets a signal; a context manager that kills it. `stderr`: what it tells."""

    def __init__(self, words: Sequence[str]) -> None:
        here, there = PROCESSES.Pipe(duplex=False)
        self.process = PROCESSES.Process(target=_tell, args=(words, there))
        self.process.start()
        there.close()
        self.stderr = os.fdopen(os.dup(here.fileno()))
        here.close()

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.join()
        self.stderr.close()

    def send(self, number: int) -> None:
        """Send a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def wait(self) -> int | None:
        """Return the exit status, None where it does not end in time."""
        self.process.join(20)
        return self.process.exitcode
