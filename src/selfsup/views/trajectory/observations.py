"""Single observations: what evaluation sees of an episode, and what a task learns from without time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from selfsup.source import Source
from selfsup.task import Fetched
from selfsup.views.reading import of_samples, read_batch
from selfsup.views.trajectory.frames import FrameViews, Moments


@dataclass(frozen=True)
class ObservationViews(FrameViews):
    """`x` (B, stack · C, H, W), one observation of each episode, or of each span of one.

    `at`: `middle` of the sample; `random`, anywhere in it; `start`. Further keys: `index` (B,) int64; with `labels`
    also `y` (B,) int64; with `noise` the keys `noise` (B,) int64 of `selfsup.nn.noise`; with `first` also `first`, the
    first observation of the same episode, in the same crop.
    """

    KEYS = ("x", "first")

    at: Literal["middle", "random", "start"] = "middle"
    labels: bool = False
    noise: bool = False
    first: bool = False

    def fetch(self, source: Source, indices: NDArray[np.int64], seed: int, epoch: int) -> Fetched:
        """Return a batch of len(indices); a sample that cannot be read is replaced by another one."""
        moments = Moments(source, self.spec)

        def read(index: int) -> NDArray[np.uint8]:
            if self.at == "random":
                episode, time = moments.drawn(index, 1, seed, epoch)
            else:
                episode, time = moments.middle(index) if self.at == "middle" else moments.range(index)[:2]
            numbers = [self.numbers(at, at) for at in ((time, 0) if self.first else (time,))]
            return moments.episodes.frames(episode, np.concatenate(numbers), moments.episodes.cameras[0])

        frames, used, skipped = read_batch(moments.spans, indices, seed, epoch, read)
        drawn, stack = self.drawn(frames, used, seed, epoch), self.spec.stack
        batch = {"x": self.stacked(drawn[:, :stack]), "index": torch.from_numpy(used)}
        if self.first:
            batch["first"] = self.stacked(np.ascontiguousarray(drawn[:, stack:]))
        batch |= of_samples(source, used, seed, epoch, self.labels, self.noise)
        return Fetched(batch, skipped)
