"""Views: from samples to a batch. Declarative, picklable, without weights or state."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from selfsup.data.sources import Source
from selfsup.task import Batch
from selfsup.views.crop import PRESETS, Crop, centre, patches, preset
from selfsup.views.images import Fetched, ImageViews, read_or_substitute

__all__ = ["PRESETS", "Crop", "Fetched", "ImageViews", "Views", "centre", "patches", "preset", "read_or_substitute"]


class Views(Protocol):
    """How samples become a batch: `fetch` in a worker on the CPU, then `finish` on the device."""

    def fetch(self, source: Source, indices: NDArray[np.int64], seed: int, epoch: int) -> Fetched:
        """Return the views of the samples, each drawn from (seed, epoch, index) alone."""

    def finish(self, batch: Batch) -> Batch:
        """Return the batch as the encoder gets it (pictures: float32, normalised, channels last in memory)."""
