"""Independent pieces of work side by side: one process a core, one thread a process."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

import torch

from selfsup.errors import RunFailed, UserError

T = TypeVar("T")
R = TypeVar("R")
PARENT_DEATH = 1  # PR_SET_PDEATHSIG of prctl.h
MEMORY = 2**31  # bytes for each process


def side_by_side(
    work: Callable[[T], R], items: Sequence[T], device: torch.device, done: Callable[[int], None] = lambda _: None
) -> list[R]:
    """Return work(item) of every item, in their order; `done(1)` is called after each.

    On the CPU of a Linux machine the work is done in copies of this process (fork), one for each core as long as there
    are 2 GiB of memory for each. They compute in one thread, so that the result for an item does not depend on the
    number of cores, and die with their parent. Small networks gain more from this than from threads, which wait for
    each other at every layer. Elsewhere the work is done here, one item after the other.

    Raises what `work` raises (as `RunFailed` if it is not an error of selfsup), and `RunFailed` when a copy is killed.
    """
    if device.type != "cpu" or sys.platform != "linux":
        results = []
        for item in items:
            results.append(work(item))
            done(1)
        return results
    context = multiprocessing.get_context("fork")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    turn, found, copies, readers = context.Value("l", 0), dict[int, R](), list[Any](), list[Any]()
    try:
        for _ in range(max(1, min(len(items), available_cores(), memory // MEMORY))):
            reader, writer = context.Pipe(duplex=False)
            readers.append(reader)
            copies.append(context.Process(target=_copy, args=(work, items, turn, writer)))
            copies[-1].start()
            writer.close()
        while readers:
            ready: Any
            for ready in wait(readers):
                try:
                    place, result, error = ready.recv()
                except EOFError:
                    raise RunFailed("a worker process was killed: is there enough memory?") from None
                if error is not None:
                    raise error
                if place is None:
                    readers.remove(ready)
                else:
                    found[place] = result
                    done(1)
    finally:
        for copy in copies:
            copy.kill()
            copy.join()
    return [found[place] for place in range(len(items))]


def _copy(work: Callable[[T], R], items: Sequence[T], turn: Any, writer: Connection) -> None:
    ctypes.CDLL(None).prctl(PARENT_DEATH, signal.SIGKILL)
    torch.set_num_threads(1)
    try:
        while (place := _next(turn)) < len(items):
            writer.send((place, work(items[place]), None))
        writer.send((None, None, None))
    except (UserError, RunFailed) as error:
        writer.send((None, None, error))
    except Exception as error:
        writer.send((None, None, RunFailed(f"{type(error).__name__}: {error}")))
    finally:
        os._exit(0)  # without the parent's exit handlers


def _next(turn: Any) -> int:
    with turn.get_lock():
        turn.value += 1
        return int(turn.value) - 1


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
