"""Data that are recorded on demand, by name: which world plays them, and how many episodes there are.

A recording stays below the cache, where `selfsup.data.trajectory.named` finds it.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from selfsup.base.cache import REMEDY
from selfsup.base.notes import say
from selfsup.base.writing import in_turn
from selfsup.control.environments import Environment
from selfsup.control.record import World, record
from selfsup.data.trajectory.named import ATARI, recorded_folder
from selfsup.errors import RunFailed, unknown


class Recording(NamedTuple):
    """How data are recorded: `make(**options)` returns a world, `options` are those that are not its defaults."""

    make: Callable[..., World]
    options: Mapping[str, Any]
    episodes: int
    jpeg: bool = False


RECORDINGS: dict[str, Recording] = {
    "reacher2": Recording(
        Environment, {"name": "Reacher-v5", "cameras": ("left=55:-55:0.65", "right=125:-55:0.65")}, episodes=200
    ),
}


def find_recording(name: str) -> Recording | None:
    """Return how named data are recorded, None for a name that is not one of them."""
    if name.startswith(ATARI):
        game = name.removeprefix(ATARI)
        return Recording(Environment, {"name": f"ALE/{game}-v5", "size": 84}, episodes=30, jpeg=True)
    return RECORDINGS.get(name)


def record_named(name: str, quiet: bool = False) -> None:
    """Record named data into the cache, where they are not yet there; a killed recording is resumed.

    Of several processes one records, and the others wait for it.

    Raises `UserError` for an unknown name, and where what records it is not installed.
    """
    folder, recording = recorded_folder(name), find_recording(name)
    if folder.is_dir():
        return
    if recording is None:
        raise unknown("recording", name, [*RECORDINGS, f"{ATARI}GAME"])
    with contextlib.ExitStack() as stack:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(in_turn(folder.with_name(f".{folder.name}.lock")))
        except OSError as error:
            raise RunFailed(f"cannot write in the cache {folder.parent}: {error.strerror}; {REMEDY}") from error
        if folder.is_dir():  # another process was faster
            return
        say(f"{name}: {recording.episodes:,} episodes are recorded once, into {folder}")
        aside = folder.with_name(f".{folder.name}.part")
        make = functools.partial(recording.make, **recording.options)
        record(aside, make, recording.episodes, 0, {"name": name}, recording.jpeg, quiet=quiet)
        os.replace(aside, folder)
