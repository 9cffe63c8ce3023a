"""The true state in place of an encoder: what an agent could do at best."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfsup.control.asked import BATCH, Asked
from selfsup.control.playing import Scene, unscaled
from selfsup.data.trajectory import Trajectories, transitions


class Step(NamedTuple):
    """What an agent learns from: features before and after (B, d), actions from -1 to 1, ends and rewards (B, 1)."""

    seen: Tensor
    action: Tensor
    after: Tensor
    ended: Tensor
    reward: Tensor


def picked(seed: int, step: int, batch_size: int, count: int) -> NDArray[np.int64]:
    """Return which of `count` transitions are the batch of a step, with replacement."""
    return (np.random.default_rng([seed, BATCH, step]).random(batch_size) * count).astype(np.int64)


class States:
    """States, of which each number has mean 0 and std 1 in the random episodes; see `Pixels`."""

    loss = 0.0

    def __init__(self, asked: Asked, source: Trajectories, space: Any) -> None:
        self.asked, self.space, self.dim = asked, space, len(source.states)
        states = source.all_steps().state
        self.mean, self.std = states.mean(0), np.maximum(states.std(0), 1e-6)

    def add(self, source: Trajectories) -> None:
        """Take in what was added to the source."""
        steps, found = source.all_steps(), transitions(source, actions=True, rewards=True)
        rows = (source.extents.cumsum() - source.extents)[found.owners] + found.starts
        state = torch.from_numpy(self._scaled(steps.state))
        action = torch.from_numpy(unscaled(steps.action[rows], self.space))
        ended, reward = (torch.from_numpy(x[rows, None].astype(np.float32)) for x in (steps.terminated, steps.reward))
        self.steps = Step(state[rows], action, state[rows + 1], ended, reward)

    def fetch(self, step: int) -> Step:
        """Return the batch of a step."""
        rows = torch.from_numpy(picked(self.asked.seed, step, self.asked.batch_size, len(self.steps.reward)))
        return Step(*(column[rows] for column in self.steps))

    def features(self, batch: Step, step: int) -> Step:
        """Return the same."""
        return batch

    def follow(self) -> None:
        """Learn nothing from the critic."""

    def watching(self) -> Callable[[int, Scene], NDArray[np.float32]]:
        """Return a function from the number of an environment and its scene to its features (1, dim)."""
        return lambda _, scene: self._scaled(scene.states)

    def told(self, progress: float) -> list[str]:
        """Return nothing to say."""
        return []

    def tensors(self) -> dict[str, Tensor]:
        """Return nothing: it learns nothing."""
        return {}

    def load(self, tensors: Mapping[str, Tensor], where: Path) -> None:
        """Go on as it is."""

    def finish(self, folder: Path) -> None:
        """Write nothing: there is no encoder."""

    def _scaled(self, states: NDArray[np.float32]) -> NDArray[np.float32]:
        return ((states - self.mean) / self.std).astype(np.float32)
