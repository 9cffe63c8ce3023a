"""Goals: an agent that learns to reach what an encoder imagines, without a reward of the environment (RIG)."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfsup.control.agents import Agent
from selfsup.control.asked import AIM, NOISE, Asked
from selfsup.control.film import tiled
from selfsup.control.playing import Act, Make, Scene, each, goals, play, unscaled
from selfsup.control.replay import Played, Replay
from selfsup.control.sight import Sight
from selfsup.data.trajectory import Episode, Episodes, Trajectories
from selfsup.errors import RunFailed
from selfsup.pretraining import run
from selfsup.request import build, resolve
from selfsup.run import Run

NETWORKS = {"policy_kwargs": {"net_arch": [400, 300]}}  # those of RIG's authors


class Reaching:
    """The encoder, trained on random episodes, and the agent that sees its latents; see `selfsup.control.rounds`."""

    unit = "of the start's distance"

    def __init__(self, asked: Asked, folder: Path, source: Trajectories, space: Any, quiet: bool) -> None:
        self.asked, self.space, self.loss = asked, space, float("nan")
        self.run = _encoder(asked, folder / "encoder", source, quiet) if asked.sees == "latents" else None
        scenes = Scene.joined([_scene(source, index) for index in range(len(source))])
        self.std = np.maximum(scenes.states.std(0), 1e-6)
        self.sight = Sight(asked.sees, self.run and self.run.load(), scenes)
        self.replay = Replay(self.sight, asked.seed)
        options = {**NETWORKS, **asked.agent_options}
        width = source.action[1]
        self.agent = Agent(asked.agent, 2 * self.sight.dim, width, self.replay, asked.seed, asked.batch_size, options)

    def add(self, source: Trajectories, rows: Sequence[int]) -> None:
        """Put episodes of a source into the replay."""
        played = []
        for index in rows:
            steps, count = source.steps(index), source.extent(index)
            features = self.sight(_scene(source, index))
            actions = unscaled(steps.action[: count - 1], self.space)
            aim = self._aim(int(source.path(index)), features[:1])[0]
            played.append(Played(features, actions, bool(steps.terminated.any()), aim))
        if played:
            self.replay.add(played)

    def updates(self, first: int, until: int) -> Generator[float]:
        """Make the updates from `first` to `until` - 1, and yield the loss of each."""
        for step in range(first, until):
            self.loss = self.agent.update(step)["critic_loss"]
            yield self.loss

    def told(self, progress: float) -> list[str]:
        """Return what the progress line says of the losses."""
        return [f"loss {self.loss:.3g}"]

    def exploring(self, numbers: Sequence[int]) -> Act:
        """Return the policy of some episodes, each with a goal of its own, which is imagined at its beginning."""
        draws = [np.random.default_rng([self.asked.seed, NOISE, number]) for number in numbers]
        aims: dict[int, NDArray[np.float32]] = {}

        def act(k: int, scene: Scene) -> NDArray[np.float32]:
            now = self.sight(scene)
            if k not in aims:
                aims[k] = self._aim(numbers[k], now)
            return self.agent.act(np.concatenate([now, aims[k]], 1), draws[k])

        return each(act)

    def measure(self, make: Make, seeds: Sequence[tuple[int, ...]], act: Act | None = None) -> list[tuple[float, ...]]:
        """Return how far from image goals the episodes of some seeds begin and end, by the agent or by `act`.

        In units of the std of the states in the random episodes.
        """
        wanted = goals(make, seeds)
        found = []
        for episode, goal in zip(play(make, seeds, act or self._towards(wanted)), wanted.states, strict=True):
            if isinstance(episode, Episode) and episode.state is not None:
                ends = [float(np.linalg.norm((episode.state[at] - goal) / self.std)) for at in (0, -1)]
                found.append(tuple(ends))
        return found

    def values(self, found: Sequence[tuple[float, ...]]) -> list[float]:
        """Return the distances at the end by the mean one at the start."""
        start, final = np.array(found).T
        values: list[float] = (final / start.mean()).tolist()
        return values

    def film(self, make: Make, seeds: Sequence[tuple[int, ...]]) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """Return what is seen of episodes that aim at imagined goals (T, H, n · W, 3), and a sheet (n · H, 3 · W, 3).

        The sheet shows beginning, goal and end of each; it is None where goals are no images.
        """
        aims: dict[int, NDArray[np.float32]] = {}

        def act(k: int, scene: Scene) -> NDArray[np.float32]:
            now = self.sight(scene)
            if k not in aims:
                aims[k] = self.sight.draw(np.random.default_rng([*seeds[k], AIM]), now)
            return self.agent.act(np.concatenate([now, aims[k]], 1))

        episodes = play(make, seeds, each(act))
        rows = [(k, next(iter(one.frames.values()))) for k, one in enumerate(episodes) if isinstance(one, Episode)]
        if not rows:
            raise RunFailed("none of the episodes of the film could be played")
        clip = tiled([frames for _, frames in rows])
        if self.run is None:
            return clip, None
        drawn = self._drawn(np.concatenate([aims[k] for k, _ in rows]))
        pairs = zip(rows, drawn, strict=True)
        sheet = [np.concatenate([frames[0], goal, frames[-1]], 1) for (_, frames), goal in pairs]
        return clip, np.concatenate(sheet)

    def tensors(self) -> dict[str, Tensor]:
        """Return all that it needs to go on."""
        return self.agent.tensors()

    def load(self, tensors: Mapping[str, Tensor], where: Path) -> None:
        """Go on from `tensors`."""
        self.agent.load(tensors, where)

    def finish(self, folder: Path) -> None:
        """Write nothing: the run of the encoder is there."""

    def _aim(self, number: int, start: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the goal (1, d) of an episode that begins with features (1, d)."""
        return self.sight.draw(np.random.default_rng([self.asked.seed, AIM, number]), start)

    def _towards(self, wanted: Scene) -> Act:
        aims = np.concatenate([self.sight(wanted.part(slice(k, k + 1))) for k in range(len(wanted.frames))])
        return each(lambda k, scene: self.agent.act(np.concatenate([self.sight(scene), aims[k : k + 1]], 1)))

    @torch.no_grad()
    def _drawn(self, aims: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return what imagined goals (n, d) look like, (n, H, W, 3)."""
        assert self.run is not None
        task: Any = self.run.load_task()[0]
        images = task.decoder(torch.from_numpy(self.sight.code(aims)))
        return np.stack([np.asarray(self.run.spec.draw(image)) for image in images])


def _encoder(asked: Asked, folder: Path, source: Trajectories, quiet: bool) -> Run:
    """Return the run of the encoder, trained on the random episodes where it is not yet."""
    if not (folder / "encoder.safetensors").exists():
        wanted = resolve(asked.task, source, {"size": asked.size, **asked.options}, encoder=asked.encoder)
        built = build(wanted, device="cpu", seed=asked.seed)
        run(built, folder, {"steps": asked.encoder_steps}, {}, quiet=quiet)
    return Run(folder)


def _scene(source: Episodes, index: int) -> Scene:
    """Return all observations of an episode."""
    frames = source.read(index)
    return Scene(frames, source.steps(index).state, np.broadcast_to(frames[:1], frames.shape))
