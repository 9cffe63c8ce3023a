"""A scene before and after something was taken, and what was taken."""

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
from selfsup.views.reading import read_or_substitute
from selfsup.views.trajectory.frames import Look, Moments, checked_crop, normalized

KEYS = ("pre", "post", "object")


@dataclass(frozen=True)
class GraspViews:
    """`pre`, `post` and `object` (B, stack · C, H, W), of episodes: first and last observation, and what was taken.

    The scene is seen by the first camera; `camera` shows in the last observation what was taken. `crop`: what is seen
    of a frame, one draw for the scene before and after, and one for the object; the whole frame by default. `index`
    (B,) int64; `output` as in `ImageViews`.
    """

    spec: TrajectorySpec
    camera: str
    crop: Crop | None = None
    output: Literal["uint8", "float32"] = "uint8"

    def for_device(self, device: torch.device | str) -> GraspViews:
        """Return the same with the output that suits a device."""
        return replace(self, output="float32" if torch.device(device).type == "cpu" else "uint8")

    def fetch(self, source: Source, indices: NDArray[np.int64], seed: int, epoch: int) -> Fetched:
        """Return a batch of len(indices); what cannot be read, and an episode of one observation, is replaced."""
        moments, count = Moments(source, self.spec), len(indices)
        look = Look(self.spec, checked_crop(self.crop or Crop(self.spec.size)), self.output)
        out, used, skipped = look.room(3, count), np.empty(count, np.int64), []

        def read(index: int) -> list[NDArray[Any]]:
            episode, start, stop = moments.range(index)
            if stop - start < 2:
                raise Broken("a single observation: nothing before or nothing after")
            scene = moments.episodes.cameras[0]
            asked = ((start, scene), (stop - 1, scene), (stop - 1, self.camera))
            return [moments.episodes.frames(episode, look.numbers(np.array([t]))[0], name) for t, name in asked]

        for row, wanted in enumerate(indices.tolist()):
            seen, used[row], broken = read_or_substitute(moments.spans, wanted, seed, epoch, read)
            skipped += broken
            u = draws(seed, epoch, used[row : row + 1], 2)[0]
            for place, frames in enumerate(seen):
                look.stacked(look.draw(frames, u[place // 2], int(used[row]), seed, epoch), out[place, row])
        batch = {key: torch.from_numpy(x).permute(0, 3, 1, 2) for key, x in zip(KEYS, out, strict=True)}
        return Fetched(batch | {"index": torch.from_numpy(used)}, tuple(skipped))

    def finish(self, batch: Batch) -> Batch:
        """Return float32 observations, normalized by the spec."""
        return dict(batch) | {key: normalized(batch[key], self.spec) for key in KEYS}
