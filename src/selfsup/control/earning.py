"""Rewards: an agent that learns from what an encoder tells it of pixels, while the encoder learns too."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from selfsup.control.agents import Agent
from selfsup.control.asked import NOISE, Asked
from selfsup.control.film import tiled
from selfsup.control.pixels import Pixels
from selfsup.control.playing import Act, Make, Scene, each, play
from selfsup.control.states import States
from selfsup.data.trajectory import Episode, Trajectories
from selfsup.errors import RunFailed
from selfsup.views.loader import ahead

NETWORKS = {"policy_kwargs": {"net_arch": [256, 256]}}
ENTROPY = {"ent_coef": "auto_0.1"}  # of SAC at first, as CURL's and DBC's authors have it
AHEAD = 1  # threads that make batches


class Earning:
    """An agent, and what it sees through; see `selfsup.control.rounds`."""

    unit = "return"

    def __init__(self, asked: Asked, folder: Path, source: Trajectories, space: Any, quiet: bool) -> None:
        self.asked, self.step, self.loss = asked, 0, float("nan")
        self.sight: Any = (States if asked.sees == "state" else Pixels)(asked, source, space)
        options = {**NETWORKS, **(ENTROPY if asked.agent == "sac" else {}), **asked.agent_options}
        width = source.action[1]
        self.agent = Agent(asked.agent, self.sight.dim, width, self, asked.seed, asked.batch_size, options)
        self.agent.model.critic.optimizer.register_step_pre_hook(lambda *_: self.sight.follow())

    def add(self, source: Trajectories, rows: Sequence[int]) -> None:
        """Learn from all episodes of the source from now on."""
        self.sight.add(source)

    def updates(self, first: int, until: int) -> Generator[float]:
        """Make the updates from `first` to `until` - 1, and yield the loss of each."""
        with closing(ahead(self.sight.fetch, range(first, until), AHEAD)) as batches:
            for step, self.batch in zip(range(first, until), batches, strict=True):
                self.loss = self.agent.update(step)["critic_loss"]
                yield self.loss + self.sight.loss

    def sample(self, batch_size: int, env: Any = None) -> Any:
        """Return the batch of a step, for Stable-Baselines3's `train`, while the encoder learns from it."""
        from stable_baselines3.common.type_aliases import ReplayBufferSamples

        return ReplayBufferSamples(*self.sight.features(self.batch, self.step))

    def told(self, progress: float) -> list[str]:
        """Return what the progress line says of the losses."""
        return [f"critic {self.loss:.3g}", *self.sight.told(progress)]

    def exploring(self, numbers: Sequence[int]) -> Act:
        """Return the policy of some episodes."""
        return self._acting([np.random.default_rng([self.asked.seed, NOISE, number]) for number in numbers])

    def measure(self, make: Make, seeds: Sequence[tuple[int, ...]], act: Act | None = None) -> list[tuple[float, ...]]:
        """Return the returns of the episodes of some seeds, by the agent without noise or by `act`."""
        episodes = play(make, seeds, act or self._acting([None] * len(seeds)))
        return [(float(np.nansum(np.asarray(one.reward))),) for one in episodes if isinstance(one, Episode)]

    def values(self, found: Sequence[tuple[float, ...]]) -> list[float]:
        """Return the returns."""
        return [value for (value,) in found]

    def film(self, make: Make, seeds: Sequence[tuple[int, ...]]) -> tuple[NDArray[np.uint8], None]:
        """Return what is seen of the episodes of some seeds (T, H, n · W, 3)."""
        episodes = play(make, seeds, self._acting([None] * len(seeds)))
        if not (clips := [next(iter(one.frames.values())) for one in episodes if isinstance(one, Episode)]):
            raise RunFailed("none of the episodes of the film could be played")
        return tiled(clips), None

    def tensors(self) -> dict[str, Tensor]:
        """Return all that it needs to go on."""
        return {f"agent.{name}": tensor for name, tensor in self.agent.tensors().items()} | self.sight.tensors()

    def load(self, tensors: Mapping[str, Tensor], where: Path) -> None:
        """Go on from `tensors`."""
        own = {name.removeprefix("agent."): value for name, value in tensors.items() if name.startswith("agent.")}
        self.agent.load(own, where)
        self.sight.load(tensors, where)

    def finish(self, folder: Path) -> None:
        """Write the run of the encoder."""
        self.sight.finish(folder / "encoder")

    def _acting(self, draws: Sequence[np.random.Generator | None]) -> Act:
        see = self.sight.watching()

        def act(k: int, scene: Scene) -> NDArray[np.float32]:
            return self.agent.act(see(k, scene), draws[k])

        return each(act)
