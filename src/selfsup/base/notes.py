"""Notes about a user's data and encoder: each is said once on stderr, and kept for --json.

In Python they are warnings of the logger `selfsup`: without any handler Python prints them on stderr, and a server or
a notebook handles them as it likes, `logging.getLogger("selfsup").setLevel(logging.ERROR)` silences them.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import Any

from selfsup.base.ranks import is_first

LOGGER = logging.getLogger("selfsup")

_heard: list[str] | None = None  # while a command of the command line runs
_said: set[str] | None = None  # while nothing is said `once` more


@contextlib.contextmanager
def hearing() -> Iterator[list[str]]:
    """Collect what is said meanwhile; the same note of two sources is said once."""
    global _heard
    before, _heard = _heard, []
    try:
        yield _heard
    finally:
        _heard = before


@contextlib.contextmanager
def once() -> Iterator[None]:
    """Say nothing twice meanwhile, in Python too: the same may be built several times for one thing that was asked."""
    global _said
    before, _said = _said, set()
    try:
        yield
    finally:
        _said = before


def say_notes(source: Any) -> None:
    """Say those of the `notes` of a source that have not been said yet; of several processes the first one speaks."""
    notes = tuple(getattr(source, "notes", ()))
    new = [note for note in notes if note not in getattr(source, "said_notes", ())]
    if not new:
        return
    with contextlib.suppress(AttributeError):  # a source of a user's own may have no room for it
        source.said_notes = notes
    say(*new)


def say(*notes: str) -> None:
    """Say notes, and keep them for --json, those that this command has said already left out."""
    for note in notes:
        if _heard is None:
            if is_first() and (_said is None or note not in _said):
                LOGGER.warning("%s", note)
            if _said is not None:
                _said.add(note)
            continue
        if note in _heard:
            continue
        _heard.append(note)
        if is_first() and sys.stderr is not None:
            print(note, file=sys.stderr)
