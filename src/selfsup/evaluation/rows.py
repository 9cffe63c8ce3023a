"""Checks, blocks and linear algebra that the evaluations share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from selfsup.base.turns import own_turn
from selfsup.errors import UserError

Features = NDArray[np.float32] | Tensor
Ids = NDArray[np.int64] | Tensor
SMALL = 2**23  # multiplications up to which float64 costs little, and a second thread gains nothing
LARGE = 1024  # samples and dimensions from which on principal components are found at random


def as_matrix(x: Features, what: str = "features") -> Tensor:
    """Return features (n, d) as a float32 tensor on their own device, or raise `UserError` if any is not finite."""
    matrix = torch.as_tensor(x).detach().to(torch.float32)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise UserError(f"{what} must have the shape (samples, dimensions), both at least 1, not {tuple(matrix.shape)}")
    bad = sum(int((~matrix[i : i + 8192].isfinite()).any(1).sum()) for i in range(0, len(matrix), 8192))
    if bad:
        raise UserError(f"{bad} of {len(matrix)} rows of {what} hold NaN or infinity; the encoder may have diverged")
    return matrix


def as_ids(y: Ids, samples: int, classes: int, device: torch.device) -> Tensor:
    """Return class ids (n,) as an int64 tensor, or raise `UserError` if they do not fit the samples or the classes."""
    ids = torch.as_tensor(y).to(device=device, dtype=torch.int64)
    if ids.shape != (samples,):
        raise UserError(f"{samples} samples need as many class ids, not {tuple(ids.shape)}")
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= classes:
        raise UserError(f"class ids must be 0 to {classes - 1}, but there are ids from {low} to {high}")
    return ids


def blocks(rows: int, width: int, numbers: int = 2**21) -> Iterator[slice]:
    """Yield slices of `rows` so that a block of `width` columns holds at most about `numbers` numbers."""
    size = max(1, numbers // max(width, 1))
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def standardise(x: Tensor, work: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean (d,), scale (d,) and (x - mean) / scale (n, d), in float64 if the `work` ahead is small.

    The scale is the standard deviation; of a constant feature it is infinite, so that the feature has no effect.
    """
    x = x.double() if work <= SMALL else x
    mean = x.mean(0)
    z = x - mean
    std = torch.linalg.vector_norm(z, dim=0) / len(z) ** 0.5
    scale = torch.where(std > 1e-6 * mean.abs(), std, torch.inf)
    return mean, scale, z.div_(scale)


def row_space(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return coordinates (n, r) of the rows along r axes, and the axes (d, r), nearly the principal ones.

    A linear model with an L2 penalty has its solution in the span of the rows, so nothing is lost for n < d.
    """
    if len(z) < z.shape[1]:
        square, rows = torch.linalg.eigh((z @ z.T).double())
        kept = square > square[-1].clamp_min(1e-300) * 4 * len(z) * torch.finfo(z.dtype).eps
        root = square[kept].sqrt()
        return (rows[:, kept] * root).to(z.dtype), z.T @ (rows[:, kept] / root).to(z.dtype)
    axes = principal_axes(z)
    return z @ axes, axes


def principal_axes(z: Tensor) -> Tensor:
    """Return the principal axes (d, d) of n >= d rows, nearly: for n >> d those of every k-th row, much cheaper."""
    some = z[:: max(1, len(z) // (16 * z.shape[1]))]
    return torch.linalg.eigh((some.T @ some).double())[1].to(z.dtype)


def principal_components(centred: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return at most `count` principal axes (d, r) of centred samples, and the standard deviation (r,) along each."""
    n, d = centred.shape
    if min(n, d) > LARGE:  # randomised (Halko et al., 2011)
        with own_turn(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            _, singular, axes = torch.svd_lowrank(centred, min(count + 16, n, d), niter=2)
        kept = singular > 1e-4 * singular[0]
        return axes[:, kept][:, :count], singular[kept][:count] / n**0.5
    wide = n < d
    values, vectors = torch.linalg.eigh((centred @ centred.T if wide else centred.T @ centred).double())
    kept = values > max(1e-9 * float(values[-1]), 1e-30)
    values, axes = values[kept][-count:], vectors[:, kept][:, -count:].float()
    if wide:
        axes = F.normalize(centred.T @ axes, dim=0)
    return axes, (values / n).sqrt().float()


@contextmanager
def few_threads(work: int) -> Iterator[None]:
    """Use one thread for a small piece of `work` (multiplications): threads that wait for each other cost more.

    On a busy machine, with loader processes running, they cost many times more.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if work <= SMALL else threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
