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

_heard: list[str] | None = None  # what was said while somebody is `hearing`
_aloud = False  # on stderr, not by the logger: while a command of the command line runs


@contextlib.contextmanager
def hearing(aloud: bool = False) -> Iterator[list[str]]:
    """Collect what is said meanwhile, and say none of it twice: `aloud` on stderr, as a command of the command line.

    Inside of another one nothing changes: what that has heard is not said again either.
    """
    global _heard, _aloud
    before = _heard, _aloud
    if _heard is None:
        _heard, _aloud = [], aloud
    try:
        yield _heard
    finally:
        _heard, _aloud = before


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
    """Say notes, and keep them for who is `hearing`, those that it has heard already left out."""
    for note in notes:
        if _heard is not None and note in _heard:
            continue
        if _heard is not None:
            _heard.append(note)
        if not is_first():
            continue
        if not _aloud:
            LOGGER.warning("%s", note)
        elif sys.stderr is not None:
            print(note, file=sys.stderr)
