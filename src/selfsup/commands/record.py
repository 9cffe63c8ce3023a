"""`record`: episodes of an environment, written to a folder from which tasks learn. Imports Gymnasium when called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfsup.base.checks import check_new_folder, check_numbers
from selfsup.base.paths import user_path
from selfsup.base.printing import Printable
from selfsup.commands.given import Names, Target
from selfsup.errors import UserError


@dataclass(frozen=True, repr=False)
class Recorded(Printable):
    """What `record` wrote to `path`: `episodes` of `observations` in all, seen by `cameras`.

    `action` ("discrete", n), ("box", d) or ("none", 0); `states` are the names of what is known of each observation;
    `dropped` counts the episodes that could not be played, by reason.
    """

    path: Path
    episodes: int
    observations: int
    cameras: tuple[str, ...]
    action: tuple[str, int]
    states: tuple[str, ...]
    dropped: Mapping[str, int]

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain values."""
        return {**vars(self), "path": str(self.path), "dropped": dict(self.dropped)}

    def __rich__(self) -> str:
        kind, count = self.action
        action = {"discrete": f"{count} actions", "box": f"actions of {count} numbers", "none": "no actions"}[kind]
        lines = [
            f"{self.path}: {self.episodes:,} episodes, {self.observations:,} observations by "
            f"{', '.join(self.cameras)}; {action}; {len(self.states)} state variables"
        ]
        lines += [f"{count:,} episodes were dropped: {reason}" for reason, count in self.dropped.items()]
        return "\n".join(lines)


def record(
    env: str,
    /,
    *,
    out: Target | None = None,
    episodes: int | None = None,
    policy: str = "random",
    cameras: Names = "",
    size: int | None = None,
    steps: int | None = None,
    jpeg: bool = False,
    seed: int = 0,
    quiet: bool = False,
) -> Recorded:
    """Record episodes of an environment into a folder, as data for every other command.

    Each episode is a function of the seed and its number. A recording that was stopped is resumed by the same command,
    with the same bytes in the end; more --episodes continue it. An episode in which the environment fails is dropped
    and counted. See docs/control.md.

    Args:
        env: An environment of Gymnasium (Reacher-v5, ALE/Pong-v5), module:Class or module:Id of your own, or data that
            are recorded on demand (atari:GAME, mocap2, reacher2, tray).
        out: The folder to write; by default recordings/ENV, and for data that are recorded on demand the cache, where
            every command finds them by their name.
        episodes: How many episodes to play; 30 by default, or for data that are recorded on demand as many as these
            have.
        policy: What acts: random (of Atari never action 0, as is usual for representation learning), or
            module:function or module:Class of your own, which this runs: it is called with an observation and a numpy
            Generator, and returns an action; a class is made with the environment.
        cameras: Of MuJoCo, names of the model's cameras or NAME=AZIMUTH:ELEVATION[:DISTANCE] (degrees, metres),
            separated by commas; by default the environment's own. Others have one.
        size: Pixels per side to which frames are scaled; 64 by default.
        steps: Most steps of an episode; by default the environment's own limit, or 1,000 if that is 10,000 or more, or
            there is none.
        jpeg: Keep frames as JPEG of quality 95, which takes a tenth of the space, instead of losslessly.
        seed: Seed of the environment and of the policy, at least 0.
        quiet: Hide progress.

    Raises:
        UserError: For an environment that is unknown, not installed, renders nothing, or has actions that cannot be
            drawn, and for a folder that holds another recording.
        RunFailed: If the first episodes all fail, the policy fails, or the folder cannot be written.
    """
    from selfsup.control.environments import Environment
    from selfsup.control.named import find_recording, record_named
    from selfsup.control.record import record as play
    from selfsup.data.trajectory import Trajectories
    from selfsup.data.trajectory.named import recorded_folder

    check_numbers(episodes=episodes, size=size, steps=steps, seed=seed)
    views = [name.strip() for name in cameras.split(",")] if isinstance(cameras, str) else list(cameras)
    given: dict[str, Any] = {"cameras": tuple(name for name in views if name), "size": size, "steps": steps}
    given = {key: value for key, value in given.items() if value}
    given |= {} if policy == "random" else {"policy": policy}
    named = find_recording(env)
    if named is not None and out is None:
        if given or episodes or seed or jpeg:
            raise UserError(f"{env} in the cache is always recorded alike: give --out, or no other options")
        record_named(env, quiet)
        return _recorded(Trajectories(recorded_folder(env), env), {})
    folder = user_path(out) if out is not None else Path("recordings") / env.replace("/", "-").replace(":", "-")
    check_new_folder(folder)
    if named is None:
        make: Any = Environment
        options = {"name": env, **given}
        count = episodes or 30
    else:
        make, options, count, jpeg = named.make, {**named.options, **given}, episodes or named.episodes, named.jpeg
        if unknown := given.keys() - {"size"} if make is not Environment else ():
            raise UserError(f"{env} has no option --{min(unknown)}")
    origin = {"name": env, **{key: value for key, value in options.items() if key != "name"}, "jpeg": jpeg}
    dropped = play(folder, lambda: make(**options), count, seed, origin, jpeg, quiet=quiet)
    return _recorded(Trajectories(folder, str(folder)), dropped)


def _recorded(source: Any, dropped: Mapping[str, int]) -> Recorded:
    return Recorded(
        source.folder, len(source), int(source.extents.sum()), source.cameras, source.action, source.states, dropped
    )
