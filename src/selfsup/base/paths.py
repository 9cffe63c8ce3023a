"""Paths as people give them: text, bytes or `os.PathLike`, with ~ for a home folder."""

from __future__ import annotations

import os
from pathlib import Path

from selfsup.errors import UserError


def expanded(given: object, what: str = "a path") -> str:
    """Return a path with ~ expanded, which a shell leaves in `--out=~/run` and Python leaves everywhere.

    Raises `UserError` if it is not a str, bytes or PathLike, or if it needs a home folder and there is none.
    """
    if not isinstance(given, str | bytes | os.PathLike):
        raise UserError(f"{what} must be a path, not {type(given).__name__}")
    path = os.path.expanduser(os.fsdecode(given))
    if path == "~" or path.startswith("~/"):
        raise UserError(f"{path}: this user has no home folder; write the whole path")
    return path


def user_path(given: object, what: str = "--out") -> Path:
    """Return `expanded` as a `Path`; `what` names the option in the error."""
    return Path(expanded(given, what))
