"""Batches in an order that is a function of (seed, step): the same for any number of workers, from any step on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from selfsup.base.processes import available_cores
from selfsup.data.image import Arrays
from selfsup.errors import RunFailed, UserError
from selfsup.source import Broken, Source
from selfsup.task import Fetched, Views
from selfsup.views.order import ordered
from selfsup.views.random import permutation

T = TypeVar("T")
READ_AHEAD = 4  # steps, beyond those that workers are making


def batches(
    source: Source,
    views: Views,
    *,
    batch_size: int,
    seed: int,
    start: int,
    steps: int,
    workers: int | str = "auto",
    rank: int = 0,
    world: int = 1,
    pin: bool = False,
    block: int = 0,
) -> Iterator[Fetched]:
    """Yield the batches of steps `start` to `steps` - 1: the same ones with any number of workers.

    Epoch e goes through `order(seed, e, len(source), …)` in batches of `batch_size` over all ranks and drops an
    incomplete last one; a rank takes the rows rank::world. Nothing is replayed to start at a later step. With `block`,
    by default that of a source that reads many neighbours together, it is shuffled in blocks: see `views.order`.

    A source that has `prefetch(indices)` is told what this rank reads `READ_AHEAD` steps later, so that what is far
    away is there when it is needed.

    `workers`: threads that make whole batches ahead of time; 0 makes them on demand; `auto` is the number of cores, or
    0 for arrays in memory if the CPU also trains: making them is faster than handing them over. Threads, not
    processes: reading, decoding and every kernel release the interpreter's lock, and no batch crosses a process
    boundary. `pin` puts the batches into page-locked memory, so that copies to a GPU overlap with its work.

    Raises `UserError` for a batch that is larger than the data; `RunFailed` if nothing can be read and, naming the
    step, for an error in a worker.
    """
    if batch_size > len(source):
        raise UserError(f"a batch of {batch_size} is larger than the data ({len(source)}); give a smaller --batch-size")
    group = getattr(source, "group_size", 1)
    if batch_size % group:
        raise UserError(f"a batch is a multiple of {group} samples of one episode, not {batch_size}: see --batch-size")
    if batch_size % world:
        raise UserError(f"a batch of {batch_size} cannot be divided among {world} processes")
    per_epoch = len(source) // batch_size
    threads = threads_for(source, pin) if workers == "auto" else int(workers)
    part = _parts(seed, source, batch_size, block)
    prefetch = getattr(source, "prefetch", None)

    def rows(step: int) -> NDArray[np.int64]:
        epoch, place = divmod(step, per_epoch)
        return part(epoch, place * batch_size, (place + 1) * batch_size)[rank::world]

    def fetch(step: int) -> Fetched:
        if prefetch is not None:
            for later in range(step if step == start else step + READ_AHEAD, min(step + READ_AHEAD + 1, steps)):
                prefetch(rows(later))
        epoch = step // per_epoch
        try:
            fetched = views.fetch(source, rows(step), seed, epoch)
        except (UserError, RunFailed):
            raise
        except Broken as error:
            raise RunFailed(str(error)) from error
        except Exception as error:
            raise RunFailed(f"making the batch of step {step} failed: {type(error).__name__}: {error}") from error
        if not pin:
            return fetched
        return Fetched({key: value.pin_memory() for key, value in fetched.batch.items()}, fetched.skipped)

    return ahead(fetch, range(start, steps), threads) if threads else map(fetch, range(start, steps))


def threads_for(source: Source, pin: bool) -> int:
    """Return how many threads `auto` is."""
    return 0 if isinstance(source, Arrays) and not pin else available_cores()


def ahead(fetch: Callable[[int], T], todo: range, workers: int) -> Generator[T]:
    """Yield fetch(step) in order, with up to workers + 1 of them finished or in progress."""
    waiting: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="views")
    try:
        for step in todo:
            waiting.append(pool.submit(fetch, step))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_POOL = 50  # batches within which samples of similar length are grouped


def _parts(seed: int, source: Source, batch_size: int, block: int) -> Callable[[int, int, int], NDArray[np.int64]]:
    """Return the function of an epoch and two places that returns which samples are at these places and between."""
    single = all(getattr(source, name, None) is None for name in ("groups", "lengths"))
    if block > 1 and not single:
        raise UserError(f"the samples of {source.name} are put together by length or group: leave --block out")
    block = block or getattr(source, "block", 1)
    if single:
        return ordered(seed, len(source), block)
    whole = lru_cache(maxsize=2)(lambda epoch: _together(seed, epoch, source, batch_size))
    return lambda epoch, start, stop: whole(epoch)[start:stop]


def _together(seed: int, epoch: int, source: Any, batch_size: int) -> NDArray[np.int64]:
    """Return the order of an epoch of samples that have `lengths`, of which those of similar length share a batch.

    If they have `groups` (N,), `group_size` of one group follow one another; what is left over of groups comes last.
    The grouping is drawn anew in every epoch, and the batches, or groups, are in random order.
    """
    drawn = permutation(seed, epoch, len(source))
    groups = getattr(source, "groups", None)
    if groups is not None:
        return _grouped(drawn, groups, getattr(source, "group_size", 1), seed, epoch)
    whole = drawn[: len(drawn) // batch_size * batch_size]
    pools = [whole[at : at + _POOL * batch_size] for at in range(0, len(whole), _POOL * batch_size)]
    whole = np.concatenate([pool[np.argsort(source.lengths[pool], kind="stable")] for pool in pools])
    shuffled = permutation(seed, epoch, len(whole) // batch_size)
    return whole.reshape(-1, batch_size)[shuffled].reshape(-1)


def _grouped(
    order: NDArray[np.int64], groups: NDArray[np.int64], size: int, seed: int, epoch: int
) -> NDArray[np.int64]:
    """Return an order in which `size` samples of one group follow one another."""
    order = order[np.argsort(groups[order], kind="stable")]
    _, first, counts = np.unique(groups[order], return_index=True, return_counts=True)
    place = np.arange(len(order)) - np.repeat(first, counts)
    whole = place < np.repeat(counts // size * size, counts)
    chunks = order[whole].reshape(-1, size)
    return np.concatenate([chunks[permutation(seed, epoch, len(chunks))].reshape(-1), order[~whole]])
