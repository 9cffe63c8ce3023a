"""Failures of the machine in one line each: out of memory, a lost device, a lost process."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from selfsup.errors import RunFailed

_MEMORY = ("out of memory", "can't allocate memory")
_DEVICE = ("CUDA error", "CUDA driver error", "cuBLAS", "CUBLAS_STATUS", "cuDNN error", "CUDNN_STATUS", "MPS backend")
_OTHERS = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")


def out_of_memory(error: BaseException) -> bool:
    """Return whether a device or the computer is out of memory."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or _says(error, _MEMORY)


def device_lost(error: BaseException) -> bool:
    """Return whether a device failed for good."""
    return isinstance(error, getattr(torch, "AcceleratorError", ())) or _says(error, _DEVICE)


def others_lost(error: BaseException) -> bool:
    """Return whether the connection to the other processes of a run broke or timed out."""
    return isinstance(error, torch.distributed.DistError) or _says(error, _OTHERS)


def _says(error: BaseException, words: tuple[str, ...]) -> bool:
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


@contextmanager
def one_line(state: Callable[[], str], batch_size: int, trial: Callable[[int], None] | None) -> Iterator[None]:
    """Turn these errors into a `RunFailed` that says what to do; others pass.

    `state` says how far the run came and what was saved. When memory runs out, `trial` tries a step with fewer samples,
    halved each time, to suggest a number that fits.
    """
    try:
        yield
        return
    except ValueError as error:
        if "Expected more than 1 value per channel" not in str(error):
            raise
        raise RunFailed(
            f"a batch has one readable sample, over which BatchNorm has no variance, {state()}; give more samples or a "
            "larger --batch-size, and another --out"
        ) from error
    except (RuntimeError, MemoryError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        if device_lost(error) and not out_of_memory(error):
            raise RunFailed(f"the device failed {state()}; run the same command to resume: {first}") from error
        if others_lost(error):
            raise RunFailed(
                f"another process of this run ended or hangs, so this one ends {state()}; run the same command again:"
                f" {first}"
            ) from error
        if _says(error, ("mixed torch.Tensor and DTensor",)):
            raise RunFailed(
                f"--shard-weights: this task computes with weights that are divided at that time, {state()}; run the "
                "same command without it"
            ) from error
        if not out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # which hold the memory that the trials need
    fits = _largest(batch_size, trial) if trial else None
    advice = "not even 2 samples fit: give a smaller --encoder or --size"
    if trial is None:
        advice = "give a smaller --micro-batch or --batch-size, and another --out"
    elif fits:
        advice = f"{fits} fit: give --micro-batch {fits}, or --batch-size {fits}, and another --out"
    raise RunFailed(f"out of memory with {batch_size} samples at once {state()}; {advice}")


def _largest(batch_size: int, trial: Callable[[int], None]) -> int | None:
    """Return the first of batch_size / 2, / 4, … with which a trial succeeds."""
    while (batch_size := batch_size // 2) >= 2:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        try:
            trial(batch_size)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)
        else:
            return batch_size
    return None
