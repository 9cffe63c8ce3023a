"""Learning to act, in rounds: an episode is a function of (seed, number), an update one of (seed, step).

A round collects episodes with a frozen policy, as one immutable shard, and then learns until a step from the shards so
far. Whatever is killed, the same command makes the same weights, bit for bit.

    OUT/control.json          what was asked
    OUT/trajectories/         the episodes; the first shard is of random actions
    OUT/encoder/              the run of the encoder (`selfsup.run`), trained before the agent, or beside it
    OUT/agent.safetensors     networks, optimizers, entropy coefficient; the digests of the shards; what was measured
    OUT/result.json           what was measured in the end
    OUT/policy.webp           what the agent does; policy-test.webp in the environment of `test`
    OUT/goals.webp            beginnings, imagined goals and where the agent went
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from selfsup.base.progress import counting
from selfsup.base.writing import only_here, write_atomically
from selfsup.control.asked import NOISE, RESET, TRIAL, Asked
from selfsup.control.earning import Earning
from selfsup.control.environments import Environment
from selfsup.control.film import save_clip, save_sheet
from selfsup.control.playing import Act, Make, play, random_actions
from selfsup.control.reaching import Reaching
from selfsup.data.trajectory import About, Episode, Shards, Trajectories
from selfsup.errors import RunFailed, UserError
from selfsup.evaluation.draws import interval
from selfsup.evaluation.rows import few_threads
from selfsup.run import differences
from selfsup.source import Broken
from selfsup.train.checkpoint import load_tensors, save_tensors, step_of
from selfsup.train.signals import Interrupted, signals

SAVE_SECONDS = 30.0
TRIED, LOOKS, LOOKED = 50, 10, 10  # episodes of the result; how often it is looked on the way, in how many
FILMED = 5  # episodes that are shown
RECENT = 10  # episodes whose return is shown
PER_PLAY = 10  # environments at once, which changes nothing but the time


class Pupil(Protocol):
    """What learns: `Reaching` goals or `Earning` rewards."""

    unit: str  # of what is measured

    def add(self, source: Trajectories, rows: Sequence[int]) -> None:
        """Learn from now on from these episodes too."""

    def updates(self, first: int, until: int) -> Generator[float]:
        """Make the updates from `first` to `until` - 1, and yield the loss of each."""

    def told(self, progress: float) -> list[str]:
        """Return what the progress line says of the losses."""

    def exploring(self, numbers: Sequence[int]) -> Act:
        """Return the policy of episodes by their numbers, with noise."""

    def measure(self, make: Make, seeds: Sequence[tuple[int, ...]], act: Act | None = None) -> list[tuple[float, ...]]:
        """Return what is measured in an episode of each seed that can be played, without noise or by `act`."""

    def values(self, found: Sequence[tuple[float, ...]]) -> list[float]:
        """Return one number for each of these."""

    def film(self, make: Make, seeds: Sequence[tuple[int, ...]]) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """Return what is seen of the episodes of some seeds (T, H, W, 3), and a sheet (H, W, 3) of goals."""

    def tensors(self) -> dict[str, Tensor]:
        """Return all that it needs to go on."""

    def load(self, tensors: Mapping[str, Tensor], where: Path) -> None:
        """Go on from `tensors`."""

    def finish(self, folder: Path) -> None:
        """Write what is of use besides the agent."""


class Row(NamedTuple):
    """What was measured in the episodes of an environment, by the `agent` or by `random` actions: a value of each."""

    env: str
    policy: str
    values: Sequence[float]


@dataclass(frozen=True)
class Learned:
    """What a run measured in the end, and the mean after some steps on the way; `unit` says of what."""

    unit: str
    rows: Sequence[Row]
    history: Sequence[tuple[int, float]]
    dropped: int


def learn(asked: Asked, folder: Path, quiet: bool = False) -> Learned:
    """Learn to act, or resume what was stopped.

    Raises `UserError` for a folder of another request, `RunFailed` where no episode can be played.
    """
    rounds = Rounds(asked, folder, quiet)
    with only_here(folder):
        rounds.begin()
        with few_threads(0):  # networks are small, and batches are made in a thread of their own
            rounds.learn()
            return rounds.result()


@contextmanager
def _whole() -> Iterator[None]:
    try:
        yield
    except Broken as error:
        raise RunFailed(f"the episodes of the agent are damaged ({error}): start again with another --out") from error


class Rounds:
    """The parts of `learn`, in their order."""

    pupil: Pupil
    source: Trajectories
    recording: Shards

    def __init__(self, asked: Asked, folder: Path, quiet: bool) -> None:
        self.asked, self.folder, self.quiet = asked, folder, quiet
        self.shards, self.checkpoint = folder / "trajectories", folder / "agent.safetensors"
        world = self.make(asked.env)()
        self.about = About(world.cameras, world.action, world.states, world.fps, {"env": asked.env, "seed": asked.seed})
        self.length, self.space = world.steps, world.env.action_space
        world.close()
        self.updates = asked.per_round * self.length  # of a round
        self.history: list[tuple[int, float]] = []
        self.returns: list[float] = []  # of the last episodes, by the environment's own reward
        self.dropped, self.step = 0, 0

    def make(self, name: str) -> Make:
        """Return a function that makes a new environment."""
        return partial(Environment, name, policy="", size=self.asked.size)

    def begin(self) -> None:
        """Collect random episodes, and make what learns, or load it."""
        self._note_request()
        self._check_disk()
        self.recording = Shards(self.shards, self.about)
        self.collect(0)
        self.source = Trajectories(self.shards, shards=self.recording.found[:1])
        self._returns(range(len(self.source)))  # or what is made of them fails in other words
        kind: Any = Reaching if self.asked.goals else Earning
        self.pupil = kind(self.asked, self.folder, self.source, self.space, self.quiet)
        if self.checkpoint.exists():
            tensors, about = load_tensors(self.checkpoint)
            self.pupil.load(tensors, self.checkpoint)
            self.step = step_of(about, self.checkpoint)
            self.history = [(at, value) for at, value in about.get("history", [])]
            known = about.get("shards", [])
            if not known or known != self._digests()[: len(known)]:
                raise UserError(f"{self.shards} is not what this agent learned from: give another --out")
        self._add(0)

    def learn(self) -> None:
        """Collect and learn in turn, to the last step."""
        steps, began, first = self.asked.steps, time.monotonic(), self.step
        every = max(1, -(-steps // self.updates) // LOOKS)

        def told() -> str:
            mean, half, _ = interval(self.returns)
            parts = [
                f"{(self.step - first) / (time.monotonic() - began):,.0f} steps/s",
                f"return {mean:.3g} ± {half:.2g}",
            ]
            parts += [f"{self.history[-1][1]:.3g} {self.pupil.unit} without noise"] if self.history else []
            parts += self.pupil.told(self.step / steps)
            return " · ".join(parts + ([f"{self.dropped} episodes dropped"] if self.dropped else []))

        with signals() as interruption, counting("acting", steps, self.quiet, told) as advance:
            advance(self.step)
            for number in range(-(-steps // self.updates)):
                until = min((number + 1) * self.updates, steps)
                self.collect(number + 1)
                self._add(number + 1)
                if self.step >= until:
                    continue
                saved = time.monotonic()
                with _whole(), closing(self.pupil.updates(self.step, until)) as updates:
                    for loss in updates:
                        if not np.isfinite(loss):
                            raise RunFailed(f"the loss is {loss} at step {self.step + 1}; the last good one is saved")
                        self.step += 1
                        advance(1)
                        if interruption.signal and self.step < until:
                            self.save()
                            raise Interrupted(interruption.signal, self.step, steps, self.folder)
                        if time.monotonic() - saved > SAVE_SECONDS and self.step < until:
                            self.save()
                            saved = time.monotonic()
                if (number + 1) % every == 0 or until == steps:
                    self.history.append((self.step, float(np.mean(self.measure(self.asked.test, LOOKED, 1, number)))))
                self.save()
                if interruption.signal and until < steps:
                    raise Interrupted(interruption.signal, self.step, steps, self.folder)

    def result(self) -> Learned:
        """Measure the agent, and random actions from the same starts, in the environment and in that of the test."""
        path, names = self.folder / "result.json", dict.fromkeys((self.asked.env, self.asked.test))
        if not path.exists():
            rows = [
                Row(name, policy, self.measure(name, TRIED, 0, random=policy == "random"))
                for name in names
                for policy in ("agent", "random")
            ]
            for name in names:
                self.show(name)
            self.pupil.finish(self.folder)
            write_atomically(path, json.dumps([row._asdict() for row in rows]).encode())
        rows = [Row(**row) for row in json.loads(path.read_bytes())]
        return Learned(self.pupil.unit, rows, self.history, self.dropped)

    def show(self, name: str) -> None:
        """Write what the agent does in an environment."""
        of_test = "-test" if name != self.asked.env else ""
        seeds = [(self.asked.seed, TRIAL, 0, place) for place in range(FILMED)]
        clip, sheet = self.pupil.film(self.make(name), seeds)
        save_clip(self.folder / f"policy{of_test}.webp", clip, self.about.fps, self.asked.size)
        if sheet is not None:
            save_sheet(self.folder / f"goals{of_test}.webp", sheet, self.asked.size)

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
                noise = [(asked.seed, NOISE, one) for one in numbers]
                act = self.pupil.exploring(numbers) if number else random_actions(self.about.action[1], noise)
                found = play(self.make(asked.env), [(asked.seed, RESET, one) for one in numbers], act)
                made.update(zip(numbers, found, strict=True))
                failed = [one for one in found if isinstance(one, Broken)]
                self.dropped += len(failed)
                if len(failed) == len(found) and not number:
                    raise RunFailed(f"none of {len(failed)} episodes could be played: {failed[0]}")
            if isinstance(wanted := made[k], Broken):
                raise wanted
            return wanted

        self.recording.extend(episode, first + count, per_shard=count)

    def measure(self, name: str, count: int, *which: int, random: bool = False) -> list[float]:
        """Return what is measured in `count` episodes of an environment, of the agent or of random actions."""
        found = []
        for at in range(0, count, PER_PLAY):
            seeds = [(self.asked.seed, TRIAL, *which, place) for place in range(at, min(at + PER_PLAY, count))]
            act = random_actions(self.about.action[1], seeds) if random else None
            found += self.pupil.measure(self.make(name), seeds, act)
        if not found:
            raise RunFailed(f"none of {count} episodes of {name} in which it is measured could be played")
        return self.pupil.values(found)

    def save(self) -> None:
        """Write the checkpoint."""
        about = {"step": self.step, "shards": self._digests(), "history": self.history}
        save_tensors(self.checkpoint, self.pupil.tensors(), about)

    def _add(self, number: int) -> None:
        """Learn from the shard of a round from now on."""
        before = len(self.source) if number else 0
        if number:
            self.source.grow(self.recording.found[number : number + 1])
        if rows := range(before, len(self.source)):
            self.returns = [*(self.returns if number else []), *self._returns(rows)][-RECENT:]
            with _whole():
                self.pupil.add(self.source, rows)

    def _returns(self, rows: Sequence[int]) -> list[float]:
        with _whole():
            return [float(np.nansum(self.source.steps(index).reward)) for index in rows]

    def _digests(self) -> list[str]:
        told = (json.dumps(shard["digests"], sort_keys=True).encode() for shard in self.recording.found)
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
