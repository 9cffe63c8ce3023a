"""Features of every sample of a source, in order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from selfsup.base.progress import counting
from selfsup.errors import RunFailed
from selfsup.source import Broken, Source
from selfsup.task import Views
from selfsup.train.log import Skipped
from selfsup.views import plain_views

BATCH = 256  # samples


@torch.no_grad()
def feature_batches(
    encoder: nn.Module,
    source: Source,
    spec: Any,
    batch_size: int = BATCH,
    device: torch.device | str = "cpu",
    views: Views | None = None,
    rows: range | None = None,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield the numbers (b,) and features (b, dim) float32 of the samples that can be read, in order.

    The encoder is in evaluation mode, and computes in float32. `views`: the plain ones by default; `rows`: of samples
    without a gap, by default all.

    Raises `UserError` for samples that the encoder cannot take, `RunFailed` when more than half are broken.
    """
    source = source.conform(spec)
    skipped = Skipped(source, None)
    views = (views or plain_views(spec)).for_device(torch.device(device))
    encoder = encoder.to(device).eval()
    rows, prefetch = range(len(source)) if rows is None else rows, getattr(source, "prefetch", None)
    for begin in range(rows.start, rows.stop, batch_size):
        if prefetch is not None:  # this batch and the next one, where they are far away
            prefetch(np.arange(begin, min(begin + 2 * batch_size, rows.stop)))
        wanted = np.arange(begin, min(begin + batch_size, rows.stop))
        try:
            fetched = views.fetch(source, wanted, 0, 0)
        except Broken as error:
            raise RunFailed(str(error)) from None
        skipped.add(fetched.skipped)
        batch = views.finish({key: value.to(device) for key, value in fetched.batch.items()})
        read = fetched.batch["index"].numpy() == wanted  # a broken sample was replaced by another one
        yield wanted[read], encoder(batch["x"]).float().cpu().numpy()[read]
    skipped.say("left out here")


def extract(
    encoder: nn.Module,
    source: Source,
    spec: Any,
    device: torch.device | str = "cpu",
    quiet: bool = True,
    what: str = "embedding",
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the numbers (n,) of the samples that can be read and their features (n, dim) float32; `what`: of a bar."""
    numbers, features = [], []
    with counting(what, len(source), quiet) as advance:
        for index, x in feature_batches(encoder, source, spec, device=device):
            numbers.append(index)
            features.append(x)
            advance(len(index))
    return np.concatenate(numbers), np.concatenate(features)
