"""What an agent with goals learns from: transitions of the shards so far; the batch of a step follows from the seed."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

KEPT, IMAGINED = 0.2, 0.5  # of a batch keep the goal that was aimed at, get a new one; the others what was seen later


class Goals(Protocol):
    """Where imagined goals come from."""

    def draw(self, generator: np.random.Generator, now: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a goal (n, d) for each of the features `now` (n, d)."""


class Played(NamedTuple):
    """An episode: features (n, d), actions (n - 1, a) from -1 to 1, whether it terminated, the goal (d,) of it."""

    features: NDArray[np.float32]
    actions: NDArray[np.float32]
    terminated: bool
    goal: NDArray[np.float32]


def reward(features: NDArray[np.float32], goals: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the distance of features (n, d) from goals, negative, by the root of d."""
    far: NDArray[np.float32] = np.linalg.norm(features - goals, axis=1)
    return -far / np.float32(np.sqrt(features.shape[1]))


class Replay:
    """All transitions in memory. A batch is drawn with replacement, from (`seed`, `step`) and what was added so far.

    Observations are features and goal, side by side. Goals are relabelled as in RIG's section 4.3.
    """

    def __init__(self, goals: Goals, seed: int) -> None:
        self.goals, self.seed, self.step = goals, seed, 0
        self.features: list[NDArray[np.float32]] = []
        self.parts: list[tuple[NDArray[Any], ...]] = []
        self.count = 0

    def add(self, episodes: list[Played]) -> None:
        """Add the episodes of a shard."""
        for one in episodes:
            steps = len(one.actions)
            rows = self.count + np.arange(steps)
            ended = np.arange(steps) == (steps - 1 if one.terminated else -1)
            goal = np.broadcast_to(one.goal, (steps, len(one.goal)))
            self.parts.append((rows, np.full(steps, self.count + steps), one.actions, ended, goal))
            self.features.append(one.features)
            self.count += len(one.features)
        self.seen = np.concatenate(self.features)
        self.features = [self.seen]
        columns = [np.concatenate(column) for column in zip(*self.parts, strict=True)]
        self.parts = [tuple(columns)]
        self.rows, self.last, self.actions, self.ended, self.aims = columns

    def sample(self, batch_size: int, env: Any = None) -> Any:
        """Return the batch of `step`, for Stable-Baselines3's `train`."""
        from stable_baselines3.common.type_aliases import ReplayBufferSamples

        generator = np.random.default_rng([self.seed, 1, self.step])
        pick = (generator.random(batch_size) * len(self.rows)).astype(np.int64)
        kept, imagined = (int(part * batch_size) for part in (KEPT, KEPT + IMAGINED))
        now = self.rows[pick]
        goals = self.aims[pick].copy()
        goals[kept:imagined] = self.goals.draw(generator, self.seen[now[kept:imagined]])
        ahead = generator.random(batch_size - imagined) * (self.last[pick] - now)[imagined:]
        goals[imagined:] = self.seen[now[imagined:] + 1 + ahead.astype(np.int64)]
        after = self.seen[now + 1]
        found = (
            np.concatenate([self.seen[now], goals], 1), self.actions[pick], np.concatenate([after, goals], 1),
            self.ended[pick, None].astype(np.float32), reward(after, goals)[:, None],
        )  # fmt: skip
        return ReplayBufferSamples(*map(torch.from_numpy, found))
