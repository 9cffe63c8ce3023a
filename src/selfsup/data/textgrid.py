"""Praat's TextGrids, as text in its long or its short form. What a program may rely on is the same in both.

Praat reads numbers, texts in quotation marks and flags in angle brackets that stand alone, and skips all other words.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from selfsup.data.encoding import encoding_of
from selfsup.source import Broken

_TOKEN = re.compile(
    r'"([^"]*(?:""[^"]*)*)"|(?<!\S)([-+]?[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?)(?!\S)|<(exists|absent)>|![^\r\n]*'
)


class Tier(NamedTuple):
    """A tier of intervals: start, end and text of each, in seconds."""

    name: str
    intervals: list[tuple[float, float, str]]


class TextGrid(NamedTuple):
    """How long the recording is, in seconds, its tiers of intervals (not those of points), and its encoding."""

    end: float
    tiers: list[Tier]
    encoding: str


def read_textgrid(path: bytes) -> TextGrid:
    """Return the content of a file. Raises `Broken` for one that is no TextGrid, is binary, or is cut off."""
    try:
        with open(path, "rb") as file:
            raw = file.read()
    except OSError as error:
        raise Broken(f"cannot be read: {error.strerror}") from None
    if raw.startswith(b"ooBinaryFile"):
        raise Broken("a binary TextGrid: save it in Praat as a text file")
    encoding = encoding_of([raw])
    text = raw.decode(encoding, errors="replace")
    try:
        return _parse(_tokens(text), encoding)
    except StopIteration:
        raise Broken("not a whole TextGrid") from None
    except ValueError:
        raise Broken("not a TextGrid") from None


def _tokens(text: str) -> Iterator[str | float]:
    for match in _TOKEN.finditer(text):
        words, number, flag = match.groups()
        if words is not None:
            yield words.replace('""', '"')
        elif number is not None:
            yield float(number)
        elif flag is not None:
            yield flag


def _parse(tokens: Iterator[str | float], encoding: str) -> TextGrid:
    def number() -> float:
        token = next(tokens)
        if not isinstance(token, float) or not math.isfinite(token):
            raise ValueError
        return token

    def words() -> str:
        token = next(tokens)
        if not isinstance(token, str):
            raise ValueError
        return token

    if not words().startswith("ooTextFile") or words() != "TextGrid":
        raise ValueError
    _, end, there = number(), number(), words() == "exists"
    tiers = []
    for _ in range(int(number()) if there else 0):
        kind, name, _, _, count = words(), words(), number(), number(), int(number())
        if kind == "IntervalTier":
            tiers.append(Tier(name, [(number(), number(), words()) for _ in range(count)]))
        elif kind == "TextTier":
            for _ in range(count):
                number(), words()
        else:
            raise ValueError
    return TextGrid(end, tiers, encoding)
