"""Large batches on small machines: the gradient of the whole batch, a micro-batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import wraps
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from selfsup.task import Batch, Loss, Task


def forward_backward(model: nn.Module, task: Task, batch: Batch, fabric: Fabric, micro_batch: int | None) -> Loss:
    """Compute the loss of a batch and its gradient, and return the loss, detached.

    Where the loss is a mean over samples (`task.coupled` is False) the gradients of micro-batches are added up. Where
    it couples samples, the encoder runs on one micro-batch at a time and stores only its output; the activations are
    recomputed when the gradient of that output is known (the gradient cache of Gao et al., 2021), and the rest of the
    task sees the whole batch. Both are exact except for BatchNorm, whose statistics in the encoder (without coupling:
    in the head too) are those of a micro-batch.
    """
    size = len(next(iter(batch.values())))
    if micro_batch is None or micro_batch >= size:
        loss: Loss = model(batch)
        fabric.backward(loss.value)
        return Loss(loss.value.detach(), loss.metrics, loss.chance)
    if task.coupled:
        with encoders_in_parts(task, micro_batch):
            return forward_backward(model, task, batch, fabric, None)
    parts: list[tuple[int, Loss]] = []
    for where in parts_of(size, micro_batch):
        count = where.stop - where.start
        with fabric.no_backward_sync(model, enabled=where.stop < size):  # type: ignore[arg-type]
            loss = model({key: value[where] for key, value in batch.items()})
            fabric.backward(loss.value * (count / size))
        parts.append((count, Loss(loss.value.detach(), loss.metrics, loss.chance)))

    def mean(values: list[Tensor]) -> Tensor:
        return torch.stack([value * (n / size) for (n, _), value in zip(parts, values, strict=True)]).sum(0)

    metrics = {key: mean([loss.metrics[key] for _, loss in parts]) for key in parts[-1][1].metrics}
    return Loss(mean([loss.value for _, loss in parts]), metrics, parts[-1][1].chance)


def parts_of(size: int, micro_batch: int) -> list[slice]:
    """Return the micro-batches of a batch; none has one sample, over which BatchNorm has no variance.

    A last one of one sample is shared with the one before: 9 in parts of 4 are 4 + 3 + 2. Only odd batches in parts of
    2 need one part of 3.
    """
    ends = [*range(micro_batch, size, micro_batch), size]
    if size % micro_batch == 1 and len(ends) > 1:
        left = micro_batch + 1 - (micro_batch + 1) // 2
        ends[-2:] = [size] if micro_batch == 2 else [size - micro_batch - 1 + left, size]
    return [slice(begin, end) for begin, end in zip([0, *ends[:-1]], ends, strict=True)]


@contextmanager
def encoders_in_parts(task: Task, micro_batch: int) -> Iterator[None]:
    """Let the task's encoder and its copies run on `micro_batch` samples at a time without storing activations."""
    encoders = [module for module in task.modules() if type(module) is type(task.encoder)]
    norms = [module for encoder in encoders for module in encoder.modules() if isinstance(module, _BatchNorm)]
    names = [name for name in ("forward", "tokens", "maps", "latents", "contexts") if hasattr(task.encoder, name)]

    def in_parts(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
        @wraps(method)
        def run(x: Tensor, *rest: Any, **more: Any) -> Tensor:
            outputs = []
            for part in parts_of(len(x), micro_batch):
                arguments = [_cut(value, part, len(x)) for value in (x, *rest)]
                options = {key: _cut(value, part, len(x)) for key, value in more.items()}
                if torch.is_grad_enabled():
                    outputs.append(
                        checkpoint(
                            method,
                            *arguments,
                            use_reentrant=False,
                            context_fn=lambda: (nullcontext(), same_statistics(norms)),
                            **options,
                        )
                    )
                else:
                    outputs.append(method(*arguments, **options))
            return torch.cat(outputs)

        return run

    before = [(encoder, name, vars(encoder).get(name)) for encoder in encoders for name in names]
    for encoder, name, _ in before:
        setattr(encoder, name, in_parts(getattr(encoder, name)))
    try:
        yield
    finally:
        for encoder, name, own in before:
            delattr(encoder, name)
            if own is not None:  # another wrapper was there
                setattr(encoder, name, own)


def _cut(value: Any, part: slice, size: int) -> Any:
    return value[part] if isinstance(value, Tensor) and value.ndim and len(value) == size else value


@contextmanager
def same_statistics(norms: list[_BatchNorm]) -> Iterator[None]:
    """Let a second pass leave BatchNorm's running statistics as the first one left them."""
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, tracked) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, tracked
