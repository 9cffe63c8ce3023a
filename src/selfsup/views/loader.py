"""The order of the batches: a pure function of the seed, so that a run can begin at any step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from selfsup.data import Arrays, Broken, Source
from selfsup.errors import RunFailed, UserError
from selfsup.views import Fetched, Views
from selfsup.views.random import permutation


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
) -> Iterator[Fetched]:
    """Yield the batches of steps `start` to `steps` - 1: the same ones with any number of workers.

    An epoch visits each sample once, in an order drawn from (seed, epoch); its incomplete last batch is left out. A
    rank gets the rows rank, rank + world, … of each batch of `batch_size` samples. Raises `UserError` for a batch that
    is larger than the data, `RunFailed` where nothing can be read.
    """
    per_epoch = len(source) // batch_size
    if per_epoch == 0:
        raise UserError(f"a batch of {batch_size} is larger than the data ({len(source)}); give a smaller --batch-size")
    if batch_size % world:
        raise UserError(f"a batch of {batch_size} cannot be divided among {world} processes")
    if workers == "auto":
        workers = 0 if isinstance(source, Arrays) else 2
    keys = _Order(len(source), batch_size, seed, start, steps, rank, world)
    loader = DataLoader(_Fetch(source, views, seed), sampler=keys, batch_size=None, num_workers=int(workers))
    for fetched in loader:
        if isinstance(fetched, str):
            raise RunFailed(fetched)
        yield fetched


class _Fetch(Dataset[Any]):
    def __init__(self, source: Source, views: Views, seed: int) -> None:
        self.source, self.views, self.seed = source, views, seed

    def __getitem__(self, key: tuple[int, NDArray[np.int64]]) -> Fetched | str:
        epoch, indices = key
        try:
            return self.views.fetch(self.source, indices, self.seed, epoch)
        except Broken as error:
            return str(error)


class _Order:
    """The keys (epoch, indices) of the batches, made as they are needed."""

    def __init__(self, count: int, batch_size: int, seed: int, start: int, steps: int, rank: int, world: int) -> None:
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.start, self.steps, self.rank, self.world = start, steps, rank, world

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        per_epoch = self.count // self.batch_size
        order, current = np.empty(0, np.int64), -1
        for step in range(self.start, self.steps):
            epoch, place = divmod(step, per_epoch)
            if epoch != current:
                order, current = permutation(self.seed, epoch, self.count), epoch
            batch = order[place * self.batch_size : (place + 1) * self.batch_size]
            yield epoch, batch[self.rank :: self.world]
