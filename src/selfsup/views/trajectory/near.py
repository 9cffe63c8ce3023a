"""Two observations of one camera that are close in time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from selfsup.source import Broken, Source
from selfsup.task import Fetched
from selfsup.views.random import uniform
from selfsup.views.reading import read_batch
from selfsup.views.trajectory.frames import TIME, FrameViews, Moments


@dataclass(frozen=True)
class NearViews(FrameViews):
    """`near` (B, 2, stack · C, H, W): an observation of each sample, and another one at most `within` seconds away.

    Where nothing is so near, the other one is the next or the one before. Samples as in `SyncViews`. Each of the two
    has a crop of its own. `time` (B, 2) float32 in seconds from the beginning of `episode` (B,) int64; `index` (B,)
    int64.
    """

    KEYS = ("near",)

    within: float = 0.2

    def fetch(self, source: Source, indices: NDArray[np.int64], seed: int, epoch: int) -> Fetched:
        """Return a batch of len(indices); what cannot be read, and an episode of one observation, is replaced."""
        moments = Moments(source, self.spec)
        camera = moments.episodes.cameras[0]
        reach = max(1, int(self.within * self.spec.fps + 1e-6))

        def read(index: int) -> tuple[list[NDArray[np.uint8]], tuple[int, int, int]]:
            episode, time = moments.drawn(index, 1, seed, epoch)
            first, last = max(0, time - reach), min(moments.episodes.extent(episode) - 1, time + reach)
            if first == last:
                raise Broken("a single observation")
            other = first + int(uniform(seed, epoch, np.array([index]), 1, TIME + 1)[0, 0] * (last - first))
            other += other >= time
            seen = [moments.episodes.frames(episode, self.numbers(t, t), camera) for t in (time, other)]
            return seen, (episode, time, other)

        found, used, skipped = read_batch(moments.spans, indices, seed, epoch, read)
        places = np.array([place for _, place in found], np.int64)
        views = [
            self.stacked(self.drawn([seen[place] for seen, _ in found], used, seed, epoch, place, 2))
            for place in (0, 1)
        ]
        batch = {
            "near": torch.stack(views, 1),
            "episode": torch.from_numpy(places[:, 0]),
            "time": torch.from_numpy((places[:, 1:] / self.spec.fps).astype(np.float32)),
            "index": torch.from_numpy(used),
        }
        return Fetched(batch, skipped)
