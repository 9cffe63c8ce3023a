"""BatchNorm at the read-out: its running statistics taken again on samples as an encoder will read them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from selfsup.errors import RunFailed
from selfsup.source import Broken, Source
from selfsup.views import plain_views
from selfsup.views.order import order

SAMPLES, BATCH = 1024, 128


def recalibrated_samples(encoder: nn.Module, source: Source) -> int:
    """Return on how many samples `recalibrate` takes statistics: 0 without BatchNorm, or for a single sample."""
    return min(SAMPLES, len(source)) if _norms(encoder) and len(source) > 1 else 0


@torch.no_grad()
def recalibrate(encoder: nn.Module, source: Source, spec: Any, *, seed: int, device: torch.device | str) -> int:
    """Take the running statistics of an encoder's BatchNorm again, in place; return on how many samples.

    A pretext task trains on patches, on crops, on grey or masked samples, whose statistics are not those of the plain
    samples that the encoder reads afterwards. No label is read and no weight changes: at most 1,024 samples, drawn by
    the seed, in batches of about 128, whose means and variances are averaged (as torch does with `momentum=None`). The
    encoder is left on the device, in evaluation mode. One process does it alone: `encoder` must not wait for others.

    Raises `RunFailed` where too many samples cannot be read.
    """
    count, norms = recalibrated_samples(encoder, source), _norms(encoder)
    if not count:
        return 0
    source, views = source.conform(spec), plain_views(spec).for_device(torch.device(device))
    encoder.to(device).eval()
    before = [norm.momentum for norm in norms]
    statistics = [{key: value.clone() for key, value in norm.named_buffers()} for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum, norm.training = None, True  # an average over the batches; nothing else is in training mode
    try:
        for some in np.array_split(order(seed, 0, len(source), 0, count), math.ceil(count / BATCH)):
            batch = views.fetch(source, some, seed, 0).batch
            encoder(views.finish({key: value.to(device) for key, value in batch.items()})["x"])
    except Broken as error:
        raise RunFailed(str(error)) from None
    finally:
        for norm, momentum, known in zip(norms, before, statistics, strict=True):
            norm.momentum, norm.training = momentum, False
            if not norm.num_batches_tracked:  # of a part that plain samples do not go through, such as another trunk
                norm.load_state_dict(known, strict=False)
    return count


def _norms(encoder: nn.Module) -> list[_BatchNorm]:
    return [one for one in encoder.modules() if isinstance(one, _BatchNorm) and one.track_running_stats]
