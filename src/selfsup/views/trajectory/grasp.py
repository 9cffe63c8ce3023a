"""A scene before and after something was taken, and what was taken."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from selfsup.source import Broken, Source
from selfsup.task import Fetched
from selfsup.views.reading import read_batch
from selfsup.views.trajectory.frames import FrameViews, Moments


@dataclass(frozen=True)
class GraspViews(FrameViews):
    """`pre`, `post` and `object` (B, stack · C, H, W), of episodes: first and last observation, and what was taken.

    The scene is seen by the first camera; `camera` shows in the last observation what was taken. The scene before and
    after has one crop, the object another. `index` (B,) int64.
    """

    KEYS = ("pre", "post", "object")

    camera: str = "object"

    def fetch(self, source: Source, indices: NDArray[np.int64], seed: int, epoch: int) -> Fetched:
        """Return a batch of len(indices); what cannot be read, and an episode of one observation, is replaced."""
        moments = Moments(source, self.spec)

        def read(index: int) -> list[NDArray[np.uint8]]:
            episode, start, stop = moments.range(index)
            if stop - start < 2:
                raise Broken("a single observation: nothing before or nothing after")
            scene = moments.episodes.cameras[0]
            asked = ((start, scene), (stop - 1, scene), (stop - 1, self.camera))
            return [moments.episodes.frames(episode, self.numbers(t, t), camera) for t, camera in asked]

        frames, used, skipped = read_batch(moments.spans, indices, seed, epoch, read)
        batch = {"index": torch.from_numpy(used)}
        for number, key in enumerate(self.KEYS):
            batch[key] = self.stacked(self.drawn([seen[number] for seen in frames], used, seed, epoch, number // 2, 2))
        return Fetched(batch, skipped)
