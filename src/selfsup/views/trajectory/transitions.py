"""Steps from one observation to the next, with what was done and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from selfsup.data.trajectory.episodes import Steps
from selfsup.source import Source
from selfsup.spec import TrajectorySpec
from selfsup.task import Batch, Fetched
from selfsup.views.image.crop import Crop
from selfsup.views.image.draw import draws
from selfsup.views.reading import read_or_substitute
from selfsup.views.trajectory.frames import Look, Moments, checked_crop, normalized


@dataclass(frozen=True)
class TransitionViews:
    """`obs` and `next_obs` (B, stack · C, H, W): two observations `gap` apart, and the step from the first one.

    Samples are those of `selfsup.data.trajectory.transitions`, or episodes, of which a step is then drawn at random.
    `action` (B, d) float32 or (B,) int64, `reward` (B, 1) float32, nan where they are not known (-1 for a number);
    `discount` (B, 1) float32, 0 where the episode terminated, and else 1, where it was cut off too. `episode` (B,)
    int64, `time` (B,) float32, seconds from its beginning to `obs`. `state` and `next_state` (B, S) float32 with
    `states`, for evaluation alone.
    `crop`: what is seen of the frames, one draw for both observations; the whole frame by default. `index` (B,) int64;
    `output` as in `ImageViews`: uint8 or float32.
    """

    spec: TrajectorySpec
    crop: Crop | None = None
    gap: int = 1
    states: bool = False
    output: Literal["uint8", "float32"] = "uint8"

    def for_device(self, device: torch.device | str) -> TransitionViews:
        """Return the same with the output that suits a device."""
        return replace(self, output="float32" if torch.device(device).type == "cpu" else "uint8")

    def fetch(self, source: Source, indices: NDArray[np.int64], seed: int, epoch: int) -> Fetched:
        """Return a batch of len(indices); a step that cannot be read is replaced by another one."""
        moments, count = Moments(source, self.spec), len(indices)
        look = Look(self.spec, checked_crop(self.crop or Crop(self.spec.size)), self.output)
        out, used, skipped = look.room(2, count), np.empty(count, np.int64), []
        places, found = np.empty((count, 2), np.int64), list[tuple[Steps, int]]()
        stack, camera = self.spec.stack, moments.episodes.cameras[0]

        def read(index: int) -> tuple[NDArray[Any], int, int, Steps]:
            episode, time = moments.drawn(index, self.gap + 1, seed, epoch)
            numbers = np.maximum(np.arange(time - stack + 1, time + self.gap + 1), 0)
            steps = moments.episodes.steps(episode)
            return moments.episodes.frames(episode, numbers, camera), episode, time, steps

        for row, wanted in enumerate(indices.tolist()):
            (frames, *places[row], steps), used[row], broken = read_or_substitute(
                moments.spans, wanted, seed, epoch, read
            )
            skipped += broken
            found.append((steps, int(places[row, 1])))
            u = draws(seed, epoch, used[row : row + 1], 1)[0, 0]
            drawn = look.draw(frames, u, int(used[row]), seed, epoch)
            look.stacked(drawn[:stack], out[0, row])
            look.stacked(drawn[-stack:], out[1, row])
        batch = {key: torch.from_numpy(x).permute(0, 3, 1, 2) for key, x in zip(("obs", "next_obs"), out, strict=True)}
        batch |= {
            "action": torch.from_numpy(np.stack([steps.action[time] for steps, time in found])),
            "reward": torch.tensor([[steps.reward[time]] for steps, time in found]),
            "discount": torch.tensor([[0.0 if steps.terminated[time] else 1.0] for steps, time in found]),
            "episode": torch.from_numpy(places[:, 0]),
            "time": torch.from_numpy((places[:, 1] / self.spec.fps).astype(np.float32)),
            "index": torch.from_numpy(used),
        }
        if self.states:
            batch["state"] = torch.from_numpy(np.stack([steps.state[time] for steps, time in found]))
            batch["next_state"] = torch.from_numpy(np.stack([steps.state[time + self.gap] for steps, time in found]))
        return Fetched(batch, tuple(skipped))

    def finish(self, batch: Batch) -> Batch:
        """Return float32 observations, normalized by the spec."""
        return dict(batch) | {key: normalized(batch[key], self.spec) for key in ("obs", "next_obs")}
