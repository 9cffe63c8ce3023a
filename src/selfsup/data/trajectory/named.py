"""Recordings that have a name: where they are kept, and their parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from selfsup.base.cache import cache_folder
from selfsup.base.opening import record_missing
from selfsup.data.trajectory.sources import Trajectories
from selfsup.errors import UserError

ATARI = "atari:"
NAMES = ("mocap2", "reacher2", "tray")  # and atari:GAME
PARTS = ("train", "test")
TEST = 5  # every fifth episode is one of the test part


def recorded_folder(name: str) -> Path:
    """Return where a recording is kept, whether or not it is there."""
    return cache_folder() / "trajectories" / name.replace(":", "-").replace("/", "-")


def names_recording(data: str) -> bool:
    """Return whether this is the name of a recording, or of a part of one."""
    return data.startswith(ATARI) or data.partition(":")[0] in NAMES


def open_recording(data: str) -> Trajectories:
    """Return the episodes of a name, recorded first where a command may do that; or a part: `NAME:train`, `NAME:test`.

    Raises `UserError` for one that is not recorded, with the command that does it.
    """
    name, _, part = data.rpartition(":")
    if part not in PARTS or name == ATARI[:-1]:
        name, part = data, ""
    folder = recorded_folder(name)
    if not folder.is_dir():
        if name.startswith(ATARI) and not name.removeprefix(ATARI):
            raise UserError("atari:GAME names a game, such as atari:Pong")
        record_missing(name)
    if not folder.is_dir():
        raise UserError(f"{name} is not recorded yet: selfsup record {name}")
    source = Trajectories(folder, name=data)
    if not part:
        return source
    test = np.arange(len(source)) % TEST == TEST - 1
    return source.take(np.flatnonzero(test if part == "test" else ~test))
