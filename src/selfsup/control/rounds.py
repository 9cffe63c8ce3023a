"""Learning to act, in rounds: an episode is a function of (seed, number), an update one of (seed, step).

A round collects episodes with a frozen policy, as one immutable shard, and then learns until a step from the shards so
far. Whatever is killed, the same command makes the same weights, bit for bit.

    OUT/control.json          what was asked
    OUT/trajectories/         the episodes; the first shard is of random actions
    OUT/encoder/              the run of the encoder, which learned from that shard (`selfsup.run`)
    OUT/agent.safetensors     networks, optimizers, entropy coefficient; the digests of the shards; what was measured
    OUT/result.json           how far the agent ends from goals
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfsup.base.progress import counting
from selfsup.base.writing import only_here, write_atomically
from selfsup.control.agents import Agent
from selfsup.control.environments import Environment
from selfsup.control.playing import Act, Scene, check_environment, goals, play, random_actions, unscaled
from selfsup.control.replay import Played, Replay
from selfsup.control.sight import Sight
from selfsup.data.trajectory import About, Episode, Episodes, Trajectories, write_shards
from selfsup.data.trajectory.writing import read_shards
from selfsup.errors import RunFailed, UserError
from selfsup.evaluation.draws import interval
from selfsup.pretraining import build, resolve, run
from selfsup.run import Run, differences
from selfsup.source import Broken
from selfsup.train.checkpoint import load_tensors, save_tensors, step_of
from selfsup.train.signals import Interrupted, signals

ROUND, OBSERVATIONS = 500, 10_000  # steps of a round, of random actions, about
SAVE_SECONDS = 30.0
TRIED, LOOKS, LOOKED = 50, 10, 10  # episodes of the result; how often it is looked on the way, in how many
PER_PLAY = 10  # environments at once
RESET, AIM, NOISE, TRIAL = 2, 3, 4, 5  # what a seed is for; 1 is the replay's


@dataclass(frozen=True)
class Asked:
    """What is to be learned, as plain values of JSON."""

    task: str
    env: str
    test: str  # the environment in which it is measured
    steps: int
    episodes: int
    seed: int
    sees: str
    agent: str
    size: int
    encoder: str
    encoder_steps: int
    batch_size: int
    per_round: int
    options: Mapping[str, Any] = field(default_factory=dict)  # of the task
    agent_options: Mapping[str, Any] = field(default_factory=dict)  # of the class of Stable-Baselines3


@dataclass(frozen=True)
class Distances:
    """True distances from image goals, at the start (n,) and at the end of episodes, in units of the states' std."""

    start: NDArray[np.float64]
    final: NDArray[np.float64]

    @property
    def ratio(self) -> float:
        """The mean distance at the end over that at the start."""
        return float(self.final.mean() / self.start.mean())


def asked_of(env: str, task: str, options: Mapping[str, Any], **given: Any) -> Asked:
    """Return a checked request. Raises `UserError` for an environment in which the agents cannot act."""
    worlds = []
    for name in (env, given["test"]):
        world = Environment(name, policy="", size=given["size"])
        worlds.append(world)
        world.close()
        check_environment(world)
    if len({(world.action, world.states) for world in worlds}) > 1:
        raise UserError(f"{worlds[1].name} has other actions or states than {env}: give another --test")
    length = worlds[0].steps
    episodes = given.pop("episodes") or -(-OBSERVATIONS // (length + 1))
    return Asked(task, env, episodes=episodes, per_round=max(2, ROUND // length), options=dict(options), **given)


def learn(asked: Asked, folder: Path, quiet: bool = False) -> tuple[Distances, Distances, list[tuple[int, float]]]:
    """Learn to reach goals, or resume what was stopped.

    Returns the distances of the agent and of random actions, and the ratio after some steps on the way. Raises
    `UserError` for a folder of another request, `RunFailed` where no episode can be played.
    """
    learner = Learner(asked, folder, quiet)
    with only_here(folder):
        learner.begin()
        learner.rounds()
        return learner.result()


class Learner:
    """The parts of `learn`, in their order."""

    def __init__(self, asked: Asked, folder: Path, quiet: bool) -> None:
        self.asked, self.folder, self.quiet = asked, folder, quiet
        self.shards, self.checkpoint = folder / "trajectories", folder / "agent.safetensors"
        world = self.make()
        self.about = About(world.cameras, world.action, world.states, world.fps, {"env": asked.env, "seed": asked.seed})
        self.length, self.space = world.steps, world.env.action_space
        world.close()
        self.updates = asked.per_round * self.length  # of a round
        self.history: list[tuple[int, float]] = []
        self.returns: list[float] = []  # of the episodes of the last round, by the environment's own reward
        self.dropped, self.step, self.loss = 0, 0, float("nan")

    def make(self) -> Environment:
        """Return a new environment."""
        return Environment(self.asked.env, policy="", size=self.asked.size)

    def make_test(self) -> Environment:
        """Return a new environment of those in which it is measured."""
        return Environment(self.asked.test, policy="", size=self.asked.size)

    def begin(self) -> None:
        """Collect random episodes, train the encoder on them, and make the agent or load it."""
        asked = self.asked
        self._note_request()
        self._check_disk()
        self.collect(0)
        source = Trajectories(self.shards)
        first = source.take(np.arange(read_shards(self.shards)[0]["episodes"]))
        encoder = self._encoder(first) if asked.sees == "latents" else None
        scenes = Scene.joined([self._scene(first, index) for index in range(len(first))])
        self.unit = np.maximum(scenes.states.std(0), 1e-6)
        self.sight = Sight(asked.sees, encoder, scenes)
        self.replay = Replay(self.sight, asked.seed)
        width = self.about.action[1]
        self.agent = Agent(
            asked.agent, 2 * self.sight.dim, width, self.replay, asked.seed, asked.batch_size, asked.agent_options
        )
        if self.checkpoint.exists():
            tensors, about = load_tensors(self.checkpoint)
            self.agent.load(tensors, self.checkpoint)
            self.step, self.history = (
                step_of(about, self.checkpoint),
                [(at, far) for at, far in about.get("history", [])],
            )
            known = about.get("shards", [])
            if not known or known != self._digests()[: len(known)]:
                raise UserError(f"{self.shards} is not what this agent learned from: give another --out")
        self._add(0)

    def rounds(self) -> None:
        """Collect and learn in turn, to the last step."""
        steps, began, first = self.asked.steps, time.monotonic(), self.step
        look = max(1, -(-steps // self.updates) // LOOKS)

        def told() -> str:
            mean, half, _ = interval(self.returns)
            parts = [
                f"{(self.step - first) / (time.monotonic() - began):,.0f} steps/s",
                f"return {mean:.3g} ± {half:.2g}",
            ]
            parts += [f"distance {self.history[-1][1]:.2f} of the start's"] if self.history else []
            parts += [f"loss {self.loss:.3g}", *([f"{self.dropped} episodes dropped"] if self.dropped else [])]
            return " · ".join(parts)

        with signals() as interruption, counting("acting", steps, self.quiet, told) as advance:
            advance(self.step)
            for number in range(-(-steps // self.updates)):
                until = min((number + 1) * self.updates, steps)
                self.collect(number + 1)
                self._add(number + 1)
                if self.step >= until:
                    continue
                saved = time.monotonic()
                while self.step < until:
                    self.loss = self.agent.update(self.step)["critic_loss"]
                    if not np.isfinite(self.loss):
                        raise RunFailed(f"the loss is {self.loss} at step {self.step + 1}; the last good one is saved")
                    self.step += 1
                    advance(1)
                    if interruption.signal and self.step < until:
                        self.save()
                        raise Interrupted(interruption.signal, self.step, steps, self.folder)
                    if time.monotonic() - saved > SAVE_SECONDS and self.step < until:
                        self.save()
                        saved = time.monotonic()
                if (number + 1) % look == 0 or until == steps:
                    self.history.append((self.step, self.measure(LOOKED, 1, number).ratio))
                self.save()
                if interruption.signal and until < steps:
                    raise Interrupted(interruption.signal, self.step, steps, self.folder)

    def result(self) -> tuple[Distances, Distances, list[tuple[int, float]]]:
        """Measure the agent, and random actions from the same starts."""
        path = self.folder / "result.json"
        if path.exists():
            kept = json.loads(path.read_bytes())
            own, chance = (Distances(*(np.array(part) for part in kept[key])) for key in ("agent", "random"))
            return own, chance, self.history
        own, chance = self.measure(TRIED, 0), self.measure(TRIED, 0, random=True)
        told = {
            name: [found.start.tolist(), found.final.tolist()] for name, found in (("agent", own), ("random", chance))
        }
        write_atomically(path, json.dumps(told).encode())
        return own, chance, self.history

    def collect(self, number: int) -> None:
        """Write the shard of a round, unless it is there; the first one is of random actions."""
        asked, first, count = self.asked, 0, self.asked.episodes
        if number:
            first, count = asked.episodes + (number - 1) * asked.per_round, asked.per_round
        made: dict[int, Episode | Broken] = {}

        def episode(k: int) -> Episode:
            if k not in made:
                numbers = range(k, min(k + PER_PLAY, first + count))
                made.clear()
                act = self._exploring(numbers) if number else self._random(NOISE, k)
                found = play(self.make, [(asked.seed, RESET, one) for one in numbers], act)
                made.update(zip(numbers, found, strict=True))
                failed = [one for one in found if isinstance(one, Broken)]
                self.dropped += len(failed)
                if len(failed) == len(found) and not number:
                    raise RunFailed(f"none of {len(failed)} episodes could be played: {failed[0]}")
            if isinstance(wanted := made[k], Broken):
                raise wanted
            return wanted

        write_shards(self.shards, self.about, episode, first + count, per_shard=count)

    def measure(self, count: int, *which: int, random: bool = False) -> Distances:
        """Return how far from goals `count` episodes begin and end, by the agent without noise or by random actions."""
        start, final = list[float](), list[float]()
        for at in range(0, count, PER_PLAY):
            seeds = [(self.asked.seed, TRIAL, *which, place) for place in range(at, min(at + PER_PLAY, count))]
            wanted = goals(self.make_test, seeds)
            act = self._random(TRIAL, *which, at) if random else self._aiming(wanted)
            for episode, goal in zip(play(self.make_test, seeds, act), wanted.states, strict=True):
                if isinstance(episode, Episode) and episode.state is not None:
                    start.append(float(np.linalg.norm((episode.state[0] - goal) / self.unit)))
                    final.append(float(np.linalg.norm((episode.state[-1] - goal) / self.unit)))
        if not start:
            raise RunFailed("none of the episodes with image goals could be played")
        return Distances(np.array(start), np.array(final))

    def save(self) -> None:
        """Write the checkpoint."""
        about = {"step": self.step, "shards": self._digests(), "history": self.history}
        save_tensors(self.checkpoint, self.agent.tensors(), about)

    def _random(self, *seed: int) -> Act:
        return random_actions(self.about.action[1], (self.asked.seed, *seed))

    def _exploring(self, numbers: Sequence[int]) -> Act:
        """Return the policy of some episodes, each with a goal of its own, which is imagined at its beginning."""
        generator = np.random.default_rng([self.asked.seed, NOISE, numbers[0]])
        aims: list[NDArray[np.float32]] = []

        def act(scene: Scene) -> NDArray[np.float32]:
            now = self.sight(scene)
            if not aims:
                aims.append(
                    np.concatenate([self._aim(number, one[None]) for number, one in zip(numbers, now, strict=True)])
                )
            return self.agent.act(np.concatenate([now, aims[0]], 1), generator)

        return act

    def _aim(self, number: int, start: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the goal (1, d) of an episode that begins with features (1, d)."""
        return self.sight.draw(np.random.default_rng([self.asked.seed, AIM, number]), start)

    def _aiming(self, wanted: Scene) -> Act:
        aims = self.sight(wanted)
        return lambda scene: self.agent.act(np.concatenate([self.sight(scene), aims], 1))

    def _add(self, number: int) -> None:
        """Put the shard of a round into the replay."""
        source, shards = Trajectories(self.shards), read_shards(self.shards)
        first = sum(shard["episodes"] for shard in shards[:number])
        played = []
        for index in range(first, first + shards[number]["episodes"]):
            steps, count = source.steps(index), source.extent(index)
            features = self.sight(self._scene(source, index))
            actions = unscaled(steps.action[: count - 1], self.space)
            aim = self._aim(int(source.path(index)), features[:1])[0]
            played.append(Played(features, actions, bool(steps.terminated.any()), aim))
        if played:
            self.replay.add(played)
            rows = range(first, first + len(played))
            self.returns = [float(np.nansum(source.steps(index).reward)) for index in rows]

    def _scene(self, source: Episodes, index: int) -> Scene:
        """Return all observations of an episode."""
        frames = source.read(index)
        return Scene(frames, source.steps(index).state, np.broadcast_to(frames[:1], frames.shape))

    def _encoder(self, source: Episodes) -> Any:
        """Return the encoder of the task, trained on the random episodes where it is not yet."""
        asked, folder = self.asked, self.folder / "encoder"
        if not (folder / "encoder.safetensors").exists():
            wanted = resolve(asked.task, source, dict(asked.options), encoder=asked.encoder)
            built = build(wanted, device="cpu", seed=asked.seed)
            run(built, folder, {"steps": asked.encoder_steps}, {}, quiet=self.quiet)
        return Run(folder).load()

    def _digests(self) -> list[str]:
        told = (json.dumps(shard["digests"], sort_keys=True).encode() for shard in read_shards(self.shards))
        return [hashlib.blake2b(one, digest_size=16).hexdigest() for one in told]

    def _note_request(self) -> None:
        path, wanted = self.folder / "control.json", json.loads(json.dumps(asdict(self.asked)))
        if path.exists():
            try:
                known = json.loads(path.read_bytes())
                other = differences(known, wanted)
            except (ValueError, AttributeError):
                raise UserError(f"{path} cannot be read: give another --out") from None
            if other:
                raise UserError(f"{self.folder} learns something else ({other[0]}): give another --out")
        elif any(entry.name != ".lock" for entry in self.folder.iterdir()):
            raise UserError(f"{self.folder} is not empty, and nothing learns to act in it: give another --out")
        else:
            write_atomically(path, json.dumps(wanted, indent=1).encode())

    def _check_disk(self) -> None:
        """Raise `UserError` where the episodes are larger than the disk."""
        rounds = -(-self.asked.steps // self.updates)
        frames = (self.asked.episodes + rounds * self.asked.per_round) * (self.length + 1)
        needed, free = frames * self.asked.size**2 * 3, shutil.disk_usage(self.folder).free
        if needed > free and not self.checkpoint.exists():
            raise UserError(
                f"the episodes take up to {needed / 2**30:,.1f} GiB, and {free / 2**30:,.1f} GiB are free in "
                f"{self.folder}: give fewer --steps, or a smaller --size"
            )
