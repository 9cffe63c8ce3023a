"""The colours that occur in a source, for `colorization` and `split_brain`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from selfsup.errors import UserError
from selfsup.nn.image.lab import ab_at, coloured, to_light
from selfsup.source import Broken, Source
from selfsup.spec import ImageSpec
from selfsup.views import plain_views


@torch.no_grad()
def ab_samples(source: Source, spec: ImageSpec, side: int, count: int = 1024) -> Tensor:
    """Return ab (N, 2, side, side) of up to `count` images, evenly spaced in the data, without greyscale ones.

    Raises `UserError` if all are greyscale.
    """
    indices, found = np.linspace(0, len(source) - 1, min(count, len(source))).astype(np.int64), []
    plain = plain_views(spec)
    try:
        for begin in range(0, len(indices), 128):
            batch = plain.finish(plain.fetch(source, indices[begin : begin + 128], 0, 0).batch)
            ab = ab_at(to_light(batch["x"], spec), side)
            found.append(ab[coloured(ab) > 0])
    except Broken as error:
        raise UserError(str(error)) from error
    colours = torch.cat(found)
    if not len(colours):
        raise UserError(
            f"all {len(indices)} images sampled from {source.name} are grey: use a task that needs no colour"
        )
    return colours
