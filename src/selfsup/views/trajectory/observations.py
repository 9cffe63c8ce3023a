"""Single observations: what evaluation sees of an episode, and what a task learns from without time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from selfsup.source import Source
from selfsup.spec import TrajectorySpec
from selfsup.task import Batch, Fetched
from selfsup.views.image.crop import Crop
from selfsup.views.image.draw import draws
from selfsup.views.reading import of_samples, read_or_substitute
from selfsup.views.trajectory.frames import Look, Moments, checked_crop, normalized


@dataclass(frozen=True)
class ObservationViews:
    """`x` (B, stack · C, H, W), one observation of each episode, or of each span of one.

    `at`: `middle` of the sample; `random`, anywhere in it; `start`. `crop`: what is seen of the frame, one draw for all
    frames of an observation; the whole frame by default. Further keys: `index` (B,) int64; with `labels` also `y` (B,)
    int64; with `noise` the keys `noise` (B,) int64 of `selfsup.nn.noise`. `output` as in `ImageViews`: uint8 or
    float32.
    """

    spec: TrajectorySpec
    at: Literal["middle", "random", "start"] = "middle"
    crop: Crop | None = None
    labels: bool = False
    noise: bool = False
    output: Literal["uint8", "float32"] = "uint8"

    def for_device(self, device: torch.device | str) -> ObservationViews:
        """Return the same with the output that suits a device."""
        return replace(self, output="float32" if torch.device(device).type == "cpu" else "uint8")

    def fetch(self, source: Source, indices: NDArray[np.int64], seed: int, epoch: int) -> Fetched:
        """Return a batch of len(indices); a sample that cannot be read is replaced by another one."""
        moments = Moments(source, self.spec)
        look = Look(self.spec, checked_crop(self.crop or Crop(self.spec.size)), self.output)
        out, used, skipped = look.room(len(indices)), np.empty(len(indices), np.int64), []

        def read(index: int) -> NDArray[Any]:
            if self.at == "random":
                episode, time = moments.drawn(index, 1, seed, epoch)
            else:
                episode, time = moments.middle(index) if self.at == "middle" else moments.range(index)[:2]
            numbers = look.numbers(np.array([time]))[0]
            return moments.episodes.frames(episode, numbers, moments.episodes.cameras[0])

        for row, wanted in enumerate(indices.tolist()):
            frames, used[row], broken = read_or_substitute(moments.spans, wanted, seed, epoch, read)
            skipped += broken
            u = draws(seed, epoch, used[row : row + 1], 1)[0, 0]
            look.stacked(look.draw(frames, u, int(used[row]), seed, epoch), out[row])
        batch = {"x": torch.from_numpy(out).permute(0, 3, 1, 2), "index": torch.from_numpy(used)}
        batch |= of_samples(source, used, seed, epoch, self.labels, self.noise)
        return Fetched(batch, tuple(skipped))

    def finish(self, batch: Batch) -> Batch:
        """Return float32 observations, normalized by the spec."""
        return dict(batch) | {"x": normalized(batch["x"], self.spec)}
