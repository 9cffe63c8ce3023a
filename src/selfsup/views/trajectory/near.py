"""Two observations of one camera that are close in time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from selfsup.source import Broken, Source
from selfsup.spec import TrajectorySpec
from selfsup.task import Batch, Fetched
from selfsup.views.image.crop import Crop
from selfsup.views.image.draw import draws
from selfsup.views.random import uniform
from selfsup.views.reading import read_or_substitute
from selfsup.views.trajectory.frames import TIME, Look, Moments, checked_crop, normalized


@dataclass(frozen=True)
class NearViews:
    """`near` (B, 2, stack · C, H, W): an observation of each sample, and another one at most `within` seconds away.

    Samples as in `SyncViews`. Each of the two has its own draw of `crop`; the whole frame by default. `time` (B, 2)
    float32 in seconds from the beginning of `episode` (B,) int64; `index` (B,) int64. `output` as in `ImageViews`.
    """

    spec: TrajectorySpec
    within: float
    crop: Crop | None = None
    output: Literal["uint8", "float32"] = "uint8"

    def for_device(self, device: torch.device | str) -> NearViews:
        """Return the same with the output that suits a device."""
        return replace(self, output="float32" if torch.device(device).type == "cpu" else "uint8")

    def fetch(self, source: Source, indices: NDArray[np.int64], seed: int, epoch: int) -> Fetched:
        """Return a batch of len(indices); what cannot be read, and an episode of one observation, is replaced."""
        moments, count = Moments(source, self.spec), len(indices)
        look = Look(self.spec, checked_crop(self.crop or Crop(self.spec.size)), self.output)
        out, used, skipped = look.room(count, 2), np.empty(count, np.int64), []
        places, camera = np.empty((count, 3), np.int64), moments.episodes.cameras[0]
        reach = max(1, int(self.within * self.spec.fps + 1e-6))

        def read(index: int) -> tuple[NDArray[Any], int, int, int]:
            episode, time = moments.drawn(index, 1, seed, epoch)
            first, last = max(0, time - reach), min(moments.episodes.extent(episode) - 1, time + reach)
            if first == last:
                raise Broken("a single observation")
            other = first + int(uniform(seed, epoch, np.array([index]), 1, TIME + 1)[0, 0] * (last - first))
            other += other >= time
            numbers = look.numbers(np.array([time, other]))
            return moments.episodes.frames(episode, numbers.reshape(-1), camera), episode, time, other

        for row, wanted in enumerate(indices.tolist()):
            (seen, *places[row]), used[row], broken = read_or_substitute(moments.spans, wanted, seed, epoch, read)
            skipped += broken
            u = draws(seed, epoch, used[row : row + 1], 2)[0]
            for place, frames in enumerate(np.split(seen, 2)):
                look.stacked(look.draw(frames, u[place], int(used[row]), seed, epoch), out[row, place])
        batch = {
            "near": torch.from_numpy(out).permute(0, 1, 4, 2, 3),
            "episode": torch.from_numpy(places[:, 0]),
            "time": torch.from_numpy((places[:, 1:] / self.spec.fps).astype(np.float32)),
            "index": torch.from_numpy(used),
        }
        return Fetched(batch, tuple(skipped))

    def finish(self, batch: Batch) -> Batch:
        """Return float32 observations, normalized by the spec."""
        return dict(batch) | {"near": normalized(batch["near"], self.spec)}
