"""How data are opened by every command: the pages of files, windows of videos, and links to folders."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import NamedTuple

from selfsup.errors import UserError


class Opening(NamedTuple):
    """`pages`: 0 for the first page of each file, n for the page behind n others, None for all of them.

    `window`: seconds of the parts of videos that are samples of their own; None for whole videos.
    """

    pages: int | None = 0
    window: float | None = None
    follow_links: bool = False


_recorders: list[Callable[[str], None]] = []


def recorded_by(record: Callable[[str], None]) -> None:
    """Let data of a name that must be recorded first be recorded by a function of that name, of a higher layer."""
    _recorders[:] = [record]


def record_missing(name: str) -> None:
    """Record data of a name, where something is there that can."""
    for record in _recorders:
        record(name)


_opening: ContextVar[Opening] = ContextVar("opening", default=Opening())  # noqa: B039 (it is a tuple)


@contextlib.contextmanager
def data_opened(
    pages: str | int | None = None, window: str | float | None = None, follow_links: bool = False
) -> Iterator[None]:
    """Open data in this way meanwhile. Raises `UserError` for impossible values.

    Args:
        pages: first, all or a number from 1.
        window: Seconds of a window of a video, above 0.
        follow_links: Whether links to folders are followed.
    """
    with opened_as(Opening(_read_pages(pages), _read_window(window), follow_links)):
        yield


@contextlib.contextmanager
def opened_as(way: Opening) -> Iterator[None]:
    """Open data as another process does."""
    token = _opening.set(way)
    try:
        yield
    finally:
        _opening.reset(token)


def opening() -> Opening:
    """Return how data are to be opened."""
    return _opening.get()


def _read_pages(pages: str | int | None) -> int | None:
    if pages in (None, "first"):
        return 0
    if pages == "all":
        return None
    try:
        number = int(str(pages))
    except ValueError:
        number = 0
    if number < 1:
        raise UserError(f"--pages is first, all or the number of a page from 1, not {pages!r}")
    return number - 1


def _read_window(window: str | float | None) -> float | None:
    if window is None:
        return None
    try:
        seconds = float(window)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise UserError(f"--window is a number of seconds above 0, not {window!r}")
    return seconds
