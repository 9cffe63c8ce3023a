"""Independent pieces of work side by side: one process a core, one thread a process."""

from __future__ import annotations

import contextlib
import ctypes
import math
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from selfsup.errors import RunFailed, UserError

T = TypeVar("T")
R = TypeVar("R")
PARENT_DEATH = 1  # PR_SET_PDEATHSIG of prctl.h
MEMORY = 2**31  # bytes for each process
ROOT = Path("/")


def side_by_side(
    work: Callable[[T], R], items: Sequence[T], device: torch.device, done: Callable[[int], None] = lambda _: None
) -> list[R]:
    """Return work(item) of every item, in their order; `done(1)` is called after each.

    On the CPU of a Linux machine the work is done in copies of this process (fork), one for each core as long as there
    are 2 GiB of memory for each. They compute in one thread, so that the result for an item does not depend on the
    number of cores, and die with their parent. Small networks gain more from this than from threads, which wait for
    each other at every layer. Elsewhere the work is done here, one item after the other; so it is in a process that may
    have no children (the workers of multiprocessing.Pool and Celery), and where the system starts none.

    Raises what `work` raises (as `RunFailed` if it is not an error of selfsup), and `RunFailed` when a copy is killed.
    """
    if not items:
        return []
    copies: dict[Connection, Copy] = {}
    found: dict[int, R] = {}
    todo = iter(range(len(items)))
    try:
        if device.type == "cpu" and sys.platform == "linux" and not multiprocessing.current_process().daemon:
            copies = _start(work, items, min(len(items), available_cores(), available_memory() // MEMORY))
        if not copies:
            for place, item in enumerate(items):
                found[place] = work(item)
                done(1)
        waiting = set(copies)
        for copy in copies.values():
            with contextlib.suppress(ConnectionError):  # it is dead already, as reading from it will tell
                copy.todo.send(next(todo, None))
        while waiting:
            ready: Any
            for ready in wait(list(waiting)):
                try:
                    place, result, error = ready.recv()
                    if error is None:
                        copies[ready].todo.send(following := next(todo, None))
                except (EOFError, ConnectionError):
                    raise RunFailed("a worker process was killed: is there enough memory?") from None
                if error is not None:
                    raise error
                if following is None:
                    waiting.remove(ready)
                found[place] = result
                done(1)
    finally:
        for results, copy in copies.items():
            copy.process.kill()
            copy.process.join()
            results.close()
            copy.todo.close()
    return [found[place] for place in range(len(items))]


def _start(work: Callable[[T], R], items: Sequence[T], count: int) -> dict[Connection, Copy]:
    """Start copies of this process, as many as the system lets start, by the pipe of their results.

    They are given items through pipes: a shared counter would need /dev/shm, which containers may lack.
    """
    context = multiprocessing.get_context("fork")
    copies: dict[Connection, Copy] = {}
    for _ in range(max(1, count)):
        try:
            (places, todo), (results, found) = context.Pipe(duplex=False), context.Pipe(duplex=False)
            with places, found:
                process = context.Process(target=_copy, args=(work, items, places, found))
                process.start()
        except OSError:  # no more processes or open files are allowed
            break
        copies[results] = Copy(process, todo)
    return copies


def _copy(work: Callable[[T], R], items: Sequence[T], places: Any, found: Any) -> None:
    ctypes.CDLL(None).prctl(PARENT_DEATH, signal.SIGKILL)
    torch.set_num_threads(1)
    try:
        while (place := places.recv()) is not None:
            found.send((place, work(items[place]), None))
    except (UserError, RunFailed) as error:
        found.send((None, None, error))
    except Exception as error:
        found.send((None, None, RunFailed(f"{type(error).__name__}: {error}")))
    finally:
        os._exit(0)  # without the parent's exit handlers


def available_cores() -> int:
    """Return the number of cores that this process may use: of its affinity, and of the quota of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for quota in _quotas():
        cores = min(cores, max(1, math.ceil(quota)))
    return cores


def available_memory() -> int:
    """Return the bytes of memory of this machine, or of the container if that has fewer."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for text in _settings("memory", "memory.max", "memory.limit_in_bytes"):
        if text.isdecimal():  # `max` is no limit
            memory = min(memory, int(text))
    return memory


def limit_threads() -> None:
    """Let torch compute in no more threads than there are cores: it does not know the quota of a container."""
    if torch.get_num_threads() > available_cores():
        torch.set_num_threads(available_cores())


def _quotas() -> Iterator[float]:
    """Yield the limits on cores of the control groups of this process."""
    for text in _settings("cpu", "cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us"):
        quota, _, period = text.partition(" ")
        if quota.isdecimal() and period.isdecimal() and int(quota) and int(period):  # `max` and -1 are no limit
            yield int(quota) / int(period)


def _settings(controller: str, unified: str, *separate: str) -> Iterator[str]:
    """Yield a setting of the control groups around this process: of version 2 from one file, of version 1 from several.

    A process in a container sees its own group at the top; another one has its path in /proc/self/cgroup.
    """
    try:
        lines = (ROOT / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    groups = {names: path for _, names, path in (line.split(":", 2) for line in lines if line.count(":") >= 2)}
    own = next((path for names, path in groups.items() if controller in names.split(",")), "/")
    top = ROOT / "sys/fs/cgroup"
    for place, path, files in (
        (top, groups.get("", "/"), (unified,)),
        (top / "unified", groups.get("", "/"), (unified,)),
        (top / controller, own, separate),
    ):
        inside = Path(path.replace("..", "").lstrip("/"))
        for group in (inside, *inside.parents):
            try:
                yield " ".join((place / group / name).read_text().strip() for name in files)
            except (OSError, ValueError):
                continue


class Copy(NamedTuple):
    """A copy of this process, and the pipe through which it is told the places of items."""

    process: Any
    todo: Any
