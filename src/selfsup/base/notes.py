"""Notes about a user's data: each is said once on stderr, and kept for --json."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

_heard: list[str] | None = None  # while a command of the command line runs


@contextlib.contextmanager
def hearing() -> Iterator[list[str]]:
    """Collect what is said meanwhile; the same note of two sources is said once."""
    global _heard
    before, _heard = _heard, []
    try:
        yield _heard
    finally:
        _heard = before


def say_notes(source: Any) -> None:
    """Print those of the `notes` of a source that have not been said yet; of several processes the first one speaks."""
    notes = tuple(getattr(source, "notes", ()))
    new = [note for note in notes if note not in getattr(source, "said_notes", ())]
    if not new:
        return
    with contextlib.suppress(AttributeError):  # a source of a user's own may have no room for it
        source.said_notes = notes
    for note in new:
        say(note)


def say(note: str) -> None:
    """Print a note, within a command only the first time; of several processes the first one speaks."""
    if _heard is not None:
        if note in _heard:
            return
        _heard.append(note)
    if os.environ.get("RANK", "0") == "0" and sys.stderr is not None:
        print(note, file=sys.stderr)
