"""Recording: worlds play episodes, which are written as shards. A killed recording is resumed, with the same bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from selfsup.base.progress import counting
from selfsup.data.trajectory import About, Episode, write_shards
from selfsup.data.trajectory.writing import read_shards
from selfsup.errors import RunFailed
from selfsup.source import Broken

PER_SHARD = 16  # episodes, which are lost when a recording is killed
HOPELESS = 10  # episodes that fail, if they are the first ones


class World(Protocol):
    """What plays episodes: an environment with a policy, or a generator."""

    cameras: tuple[str, ...]
    action: tuple[str, int]
    states: tuple[str, ...]
    fps: float

    def episode(self, seed: int, number: int) -> Episode:
        """Play an episode, a function of the seed and its number. Raises `Broken` for one that fails."""

    def close(self) -> None:
        """End the world."""


def record(
    folder: Path,
    make_world: Callable[[], World],
    episodes: int,
    seed: int,
    origin: Mapping[str, Any],
    jpeg: bool = False,
    per_shard: int = PER_SHARD,
    quiet: bool = False,
) -> Mapping[str, int]:
    """Record episodes 0 to `episodes` - 1 into a folder, and return how many were dropped for what reason.

    What is there already is kept. Each shard, and each episode behind one that failed, begins with a new world: what an
    environment keeps from one episode to the next is the same when a recording is resumed. `origin` says how the
    episodes are made: a folder is continued only with the same.

    Raises `UserError` for a folder that holds another recording, and for a world that cannot be made; `RunFailed` where
    the first episodes all fail.
    """
    first = make_world()
    about = About(first.cameras, first.action, first.states, first.fps, {**origin, "seed": seed})
    world: World | None = first
    shards = read_shards(folder) if folder.is_dir() else []
    done = shards[-1]["until"] if shards else 0
    failed, observations, began = 0, 0, time.monotonic()

    def make(number: int) -> Episode:
        nonlocal world, failed, observations
        if world is not None and number > done and (number - done) % per_shard == 0:
            world.close()
            world = None
        world = world or make_world()
        try:
            episode = world.episode(seed, number)
        except Broken as error:
            world.close()
            world = None
            failed += 1
            if failed == min(HOPELESS, episodes) == number + 1:
                raise RunFailed(f"none of the first {failed} episodes could be played: {error}") from error
            raise
        observations += len(episode.frames[about.cameras[0]])
        return episode

    def told() -> str:
        rate = f"{observations / (time.monotonic() - began):,.0f} observations/s"
        return f"{rate} · {failed:,} episodes dropped" if failed else rate

    try:
        with counting("recording", episodes, quiet, told) as advance:
            return write_shards(folder, about, make, episodes, per_shard, jpeg, advance)
    finally:
        if world is not None:
            world.close()
