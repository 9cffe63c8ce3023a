"""Views: from samples to a batch. Declarative, picklable, without weights or state."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from selfsup.data.sources import Source
from selfsup.task import Batch
from selfsup.views.crop import PRESETS, Crop, centre, multi_crop, patches, preset
from selfsup.views.images import Fetched, ImageViews, read_or_substitute

__all__ = [
    "PRESETS",
    "Crop",
    "Fetched",
    "ImageViews",
    "Views",
    "centre",
    "multi_crop",
    "patches",
    "plain_views",
    "preset",
    "read_or_substitute",
]


def plain_views(spec: Any) -> Views:
    """Return the views that evaluation, embedding and export use: the key `x`, unchanged."""
    from selfsup.modalities import modality

    return modality(spec).plain_views(spec)


class Views(Protocol):
    """How samples become a batch: `fetch` in a worker on the CPU, then `finish` on the device."""

    def for_device(self, device: torch.device) -> Views:
        """Return the same views, with the division of work between `fetch` and `finish` that suits a device."""

    def fetch(self, source: Source, indices: NDArray[np.int64], seed: int, epoch: int) -> Fetched:
        """Return the views of the samples, each drawn from (seed, epoch, index) alone."""

    def finish(self, batch: Batch) -> Batch:
        """Return the batch as the encoder gets it (pictures: float32, normalised, channels last in memory)."""
