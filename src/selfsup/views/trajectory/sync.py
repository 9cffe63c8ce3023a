"""What several cameras see at the same moments, and one camera at several moments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from selfsup.errors import UserError
from selfsup.source import Source
from selfsup.task import Fetched
from selfsup.views.reading import read_batch
from selfsup.views.trajectory.frames import FrameViews, Moments


@dataclass(frozen=True)
class SyncViews(FrameViews):
    """`views` (B, K, stack · C, H, W): what K cameras see at one moment of each sample, an episode or a span of one.

    The moment is drawn at random in a sample; samples of `selfsup.data.trajectory.observations` are one each, and with
    its `group_size` so many rows that follow one another are of one episode. `cameras`: so many, the first ones of the
    source; 0 for all. Each camera has a crop of its own. `time` (B,) float32 in seconds from the beginning of `episode`
    (B,) int64; `index` (B,) int64.
    """

    KEYS = ("views",)

    cameras: int = 0

    def fetch(self, source: Source, indices: NDArray[np.int64], seed: int, epoch: int) -> Fetched:
        """Return a batch of len(indices); what cannot be read is replaced. Raises `UserError` for too few cameras."""
        moments = Moments(source, self.spec)
        names = moments.episodes.cameras[: self.cameras or None]
        if len(names) < (self.cameras or 2):
            raise UserError(
                f"{source.name} has {len(names)} camera{'s' * (len(names) > 1)}, and this task compares "
                f"{self.cameras or 'several'}: give data with more, or a task of one camera, such as tcn_single"
            )

        def read(index: int) -> tuple[list[NDArray[np.uint8]], tuple[int, int]]:
            episode, time = moments.drawn(index, 1, seed, epoch)
            numbers = self.numbers(time, time)
            return [moments.episodes.frames(episode, numbers, camera) for camera in names], (episode, time)

        found, used, skipped = read_batch(moments.spans, indices, seed, epoch, read)
        places = np.array([place for _, place in found], np.int64)
        views = [
            self.stacked(self.drawn([seen[place] for seen, _ in found], used, seed, epoch, place, len(names)))
            for place in range(len(names))
        ]
        batch = {
            "views": torch.stack(views, 1),
            "episode": torch.from_numpy(places[:, 0]),
            "time": torch.from_numpy((places[:, 1] / self.spec.fps).astype(np.float32)),
            "index": torch.from_numpy(used),
        }
        return Fetched(batch, skipped)
