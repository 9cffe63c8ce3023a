"""Steps from one observation to the next, with what was done and what came of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from selfsup.data.trajectory.episodes import Steps
from selfsup.source import Source
from selfsup.task import Fetched
from selfsup.views.reading import of_samples, read_batch
from selfsup.views.trajectory.frames import FrameViews, Moments


@dataclass(frozen=True)
class TransitionViews(FrameViews):
    """`obs` and `next_obs` (B, stack · C, H, W): two observations `gap` apart, and the step from the first one.

    Samples are those of `selfsup.data.trajectory.transitions`, or episodes, of which a step is then drawn at random.
    `action` (B, d) float32 or (B,) int64, `reward` (B, 1) float32, nan where they are not known (-1 for a number);
    `discount` (B, 1) float32, 0 where the episode terminated, and else 1, where it was cut off too. `episode` (B,)
    int64, `time` (B,) float32, seconds from its beginning to `obs`; `index` (B,) int64, with `noise` the keys `noise`
    (B,) int64 of `selfsup.nn.noise`. With `states` also `state` and `next_state` (B, S) float32, for evaluation alone.
    Both observations have the same crop; with `positive` there is also `positive`, the first one in another crop.
    """

    KEYS = ("obs", "next_obs", "positive")

    gap: int = 1
    states: bool = False
    noise: bool = False
    positive: bool = False

    def fetch(self, source: Source, indices: NDArray[np.int64], seed: int, epoch: int) -> Fetched:
        """Return a batch of len(indices); a step that cannot be read is replaced by another one."""
        moments = Moments(source, self.spec)

        def read(index: int) -> tuple[NDArray[np.uint8], Steps, tuple[int, int]]:
            episode, time = moments.drawn(index, self.gap + 1, seed, epoch)
            seen = moments.episodes.frames(episode, self.numbers(time, time + self.gap), moments.episodes.cameras[0])
            return seen, moments.episodes.steps(episode), (episode, time)

        read_ones, used, skipped = read_batch(moments.spans, indices, seed, epoch, read)
        places = np.array([place for _, _, place in read_ones], np.int64)
        found = [(steps, time) for _, steps, (_, time) in read_ones]
        drawn, stack = self.drawn([seen for seen, _, _ in read_ones], used, seed, epoch), self.spec.stack
        batch = {
            "obs": self.stacked(drawn[:, :stack]),
            "next_obs": self.stacked(drawn[:, -stack:]),
            "action": torch.from_numpy(np.stack([steps.action[time] for steps, time in found])),
            "reward": torch.tensor([[steps.reward[time]] for steps, time in found]),
            "discount": torch.tensor([[0.0 if steps.terminated[time] else 1.0] for steps, time in found]),
            "episode": torch.from_numpy(places[:, 0]),
            "time": torch.from_numpy((places[:, 1] / self.spec.fps).astype(np.float32)),
            "index": torch.from_numpy(used),
        } | of_samples(source, used, seed, epoch, False, self.noise)
        if self.positive:
            first = [seen[:stack] for seen, _, _ in read_ones]
            batch["positive"] = self.stacked(self.drawn(first, used, seed, epoch, 1, 2))
        if self.states:
            batch["state"] = torch.from_numpy(np.stack([steps.state[time] for steps, time in found]))
            batch["next_state"] = torch.from_numpy(np.stack([steps.state[time + self.gap] for steps, time in found]))
        return Fetched(batch, skipped)
