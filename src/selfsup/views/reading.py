"""What the views of every kind of data share: substitutes for samples that cannot be read, labels and keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfsup.errors import UserError
from selfsup.nn.constants import mean_std
from selfsup.source import Broken, Source
from selfsup.spec import ImageSpec
from selfsup.views.random import keys, uniform

T = TypeVar("T")
ATTEMPTS = 64


def read_or_substitute(
    source: Source, index: int, seed: int, epoch: int, read: Callable[[int], T] | None = None
) -> tuple[T, int, list[tuple[int, str]]]:
    """Read a sample; if it is broken, draw others from (seed, epoch, index).

    `read` is `source.read` by default. Returns its result, the number of the sample, and the broken ones with reasons.
    Raises `Broken` after 64 broken samples.
    """
    broken: list[tuple[int, str]] = []
    for candidate in _candidates(len(source), index, seed, epoch):
        try:
            return (read or source.read)(candidate), candidate, broken
        except Broken as error:
            broken.append((candidate, str(error)))
    raise Broken(f"{ATTEMPTS} samples in a row cannot be read, for example {source.path(index)!r}: {broken[0][1]}")


def read_batch(
    source: Source, indices: NDArray[np.int64], seed: int, epoch: int, read: Callable[[int], T]
) -> tuple[list[T], NDArray[np.int64], tuple[tuple[int, str], ...]]:
    """Return what `read` gives for each of the samples, or for those that take their place, as `read_or_substitute`.

    Also the numbers (B,) of the samples that were used, and the broken ones with reasons.
    """
    found = [read_or_substitute(source, index, seed, epoch, read) for index in indices.tolist()]
    used = np.array([candidate for _, candidate, _ in found], np.int64)
    return [one for one, _, _ in found], used, tuple(one for _, _, broken in found for one in broken)


def substitute_empty(
    source: Source, indices: NDArray[np.int64], seed: int, epoch: int
) -> tuple[NDArray[np.int64], tuple[tuple[int, str], ...]]:
    """Return these samples with those of no extent replaced, by others that are drawn in the same way."""

    def extent(candidate: int) -> int:
        if not source.extent(candidate):
            raise Broken("empty")
        return candidate

    _, used, skipped = read_batch(source, indices, seed, epoch, extent)
    return used, skipped


def of_samples(
    source: Source, used: NDArray[np.int64], seed: int, epoch: int, labels: bool, noise: bool
) -> dict[str, Tensor]:
    """Return what a batch says of its samples besides their views: `y` with `labels`, `noise` with `noise`, each (B,).

    Raises `UserError` for a source without labels.
    """
    found = {}
    if labels:
        if source.labels is None:
            raise UserError(f"{source.name} has no labels; give them with labels=")
        found["y"] = torch.from_numpy(source.labels.ids[used])
    if noise:
        found["noise"] = torch.from_numpy(keys(seed, epoch, used))
    return found


def normalized(x: Tensor, spec: ImageSpec) -> Tensor:
    """Return images (..., C, H, W) as float32, normalized by the spec; floats stay as they are."""
    if x.dtype != torch.uint8:
        return x
    mean, std = mean_std(spec, x)
    return (x.float() - 255 * mean).mul_(1 / (255 * std))


def _candidates(count: int, index: int, seed: int, epoch: int) -> Iterator[int]:
    yield index
    yield from (uniform(seed, epoch, np.array([~index]), ATTEMPTS - 1)[0] * count).astype(np.int64).tolist()
