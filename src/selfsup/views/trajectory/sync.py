"""What several cameras see at the same moments, and one camera at several moments."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from selfsup.errors import UserError
from selfsup.source import Source
from selfsup.spec import TrajectorySpec
from selfsup.task import Batch, Fetched
from selfsup.views.image.crop import Crop
from selfsup.views.image.draw import draws
from selfsup.views.reading import read_or_substitute
from selfsup.views.trajectory.frames import Look, Moments, checked_crop, normalized


@dataclass(frozen=True)
class SyncViews:
    """`views` (B, K, stack · C, H, W): what K cameras see at one moment of each sample, an episode or a span of one.

    The moment is drawn at random in a sample; samples of `selfsup.data.trajectory.observations` are one each, and with
    its `group_size` so many rows that follow one another are of one episode. `cameras` are the first ones of the
    source: 0 for all of them. `crop`: what is seen of a frame, another draw for each camera; the whole frame by
    default. `time` (B,) float32 in seconds from the beginning of `episode` (B,) int64; `index` (B,) int64. `output` as
    in `ImageViews`: uint8 or float32.
    """

    spec: TrajectorySpec
    cameras: int = 0
    crop: Crop | None = None
    output: Literal["uint8", "float32"] = "uint8"

    def for_device(self, device: torch.device | str) -> SyncViews:
        """Return the same with the output that suits a device."""
        return replace(self, output="float32" if torch.device(device).type == "cpu" else "uint8")

    def fetch(self, source: Source, indices: NDArray[np.int64], seed: int, epoch: int) -> Fetched:
        """Return a batch of len(indices); what cannot be read is replaced. Raises `UserError` for too few cameras."""
        moments, count = Moments(source, self.spec), len(indices)
        names = moments.episodes.cameras[: self.cameras or None]
        if len(names) < (self.cameras or 2):
            raise UserError(
                f"{source.name} has {len(names)} camera{'s' * (len(names) > 1)}, and this task compares "
                f"{self.cameras or 'several'}: give data with more, or a task of one camera, such as tcn_single"
            )
        look = Look(self.spec, checked_crop(self.crop or Crop(self.spec.size)), self.output)
        out, used, skipped = look.room(count, len(names)), np.empty(count, np.int64), []
        places = np.empty((count, 2), np.int64)

        def read(index: int) -> tuple[list[NDArray[Any]], int, int]:
            episode, time = moments.drawn(index, 1, seed, epoch)
            numbers = look.numbers(np.array([time]))[0]
            return [moments.episodes.frames(episode, numbers, camera) for camera in names], episode, time

        for row, wanted in enumerate(indices.tolist()):
            (seen, *places[row]), used[row], broken = read_or_substitute(moments.spans, wanted, seed, epoch, read)
            skipped += broken
            u = draws(seed, epoch, used[row : row + 1], len(names))[0]
            for place, frames in enumerate(seen):
                look.stacked(look.draw(frames, u[place], int(used[row]), seed, epoch), out[row, place])
        batch = {
            "views": torch.from_numpy(out).permute(0, 1, 4, 2, 3),
            "episode": torch.from_numpy(places[:, 0]),
            "time": torch.from_numpy((places[:, 1] / self.spec.fps).astype(np.float32)),
            "index": torch.from_numpy(used),
        }
        return Fetched(batch, tuple(skipped))

    def finish(self, batch: Batch) -> Batch:
        """Return float32 views, normalized by the spec."""
        return dict(batch) | {"views": normalized(batch["views"], self.spec)}
