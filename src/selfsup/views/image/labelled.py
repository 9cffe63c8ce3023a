"""Labelled images in addition to the views of a task that needs no labels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from selfsup.source import Source
from selfsup.task import Batch, Fetched, Views
from selfsup.views.image import Crop, ImageViews
from selfsup.views.random import uniform


@dataclass(frozen=True)
class LabelledViews:
    """The pretext's views, and for each sample a labelled image drawn, with its shift, from (seed, epoch, index).

    Of `crop`, labelled images have `pad`, `flip`, `vertical_flip` and `quarter_turns`.
    """

    pretext: Views
    plain: ImageViews
    crop: Crop

    def for_device(self, device: torch.device) -> LabelledViews:
        """Return the same with the pretext's views as they suit a device; companions stay uint8 until `finish`."""
        return replace(self, pretext=self.pretext.for_device(device))

    def fetch(self, source: Source, indices: NDArray[np.int64], seed: int, epoch: int) -> Fetched:
        """Return the pretext's batch with `x_labelled` (B, C, H, W) uint8 and `y_labelled` (B,)."""
        fetched = self.pretext.fetch(source, indices, seed, epoch)
        assert source.labels is not None
        labelled = np.flatnonzero(source.labels.ids >= 0)
        draws = uniform(~seed, epoch, indices, 6)  # ~: other numbers than those of the pretext task
        chosen = labelled[(draws[:, 0] * len(labelled)).astype(np.int64)]
        companions = self.plain.fetch(source.take(chosen), np.arange(len(chosen)), seed, epoch)
        x = shifted(companions.batch["x_labelled"], draws[:, 1:], self.crop)
        skipped = tuple((int(chosen[place]), reason) for place, reason in companions.skipped)
        batch = {**fetched.batch, "x_labelled": x, "y_labelled": companions.batch["y"]}
        return Fetched(batch, fetched.skipped + skipped)

    def finish(self, batch: Batch) -> Batch:
        """Return both parts as the encoder gets them."""
        return self.plain.finish(self.pretext.finish(batch))


def shifted(x: Tensor, draws: NDArray[np.float64], crop: Crop) -> Tensor:
    """Shift images (B, C, H, W) over zeros, mirror and turn them as `crop` says, by `draws` (B, 5)."""
    high, wide = x.shape[2:]
    pad = crop.pad
    first = torch.from_numpy((draws[:, :2] * (2 * pad + 1)).astype(np.int64))
    rows, columns = first[:, :1] + torch.arange(high), first[:, 1:] + torch.arange(wide)
    columns = torch.where(torch.from_numpy(draws[:, 2:3] < crop.flip), columns.flip(1), columns)
    rows = torch.where(torch.from_numpy(draws[:, 3:4] < crop.vertical_flip), rows.flip(1), rows)
    padded = F.pad(x, (pad, pad, pad, pad)).permute(0, 2, 3, 1)
    moved = padded[torch.arange(len(x))[:, None, None], rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)
    if crop.quarter_turns:
        quarters = torch.from_numpy(np.floor(4 * draws[:, 4]))
        for k in (1, 2, 3):
            moved[quarters == k] = moved[quarters == k].rot90(k, (2, 3))
    return moved
