"""Options as docstrings describe them: a sentence for each, and its range.

An entry of `Args:` ends with the range, if there is one, in interval notation: "in (0, 1]", "in [1, inf)".
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple


class Range(NamedTuple):
    """An interval; `text` as it stands in the docstring."""

    low: float
    high: float
    text: str

    def holds(self, value: float) -> bool:
        """Return whether a number lies in the interval."""
        above = value > self.low if self.text[0] == "(" else value >= self.low
        below = value < self.high if self.text[-1] == ")" else value <= self.high
        return above and below


class Option(NamedTuple):
    """An option: its default (None: required, or automatic), its description, and its range if it has one."""

    default: Any
    help: str
    range: Range | None = None

    @property
    def sentence(self) -> str:
        """The description with the range."""
        return f"{self.help.rstrip('.')}, in {self.range.text}." if self.range else self.help


_ENTRY = re.compile(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", re.M)
_RANGE = re.compile(r",? in ([\[(])\s*([-\w./]+), ([-\w./]+)\s*([\])])\.?$")


def read_args(text: str) -> dict[str, str]:
    """Return the entries of the section `Args:` of a docstring, each in one line."""
    _, found, rest = inspect.cleandoc(text).partition("\nArgs:\n")
    section = re.split(r"\n(?=\S)", rest)[0]
    return {name: " ".join(words.split()) for name, words in _ENTRY.findall(section)} if found else {}


def read_options(parameters: Mapping[str, inspect.Parameter], text: str) -> dict[str, Option]:
    """Return the parameters as options, described by a docstring."""
    said = read_args(text)
    found = {}
    for name, parameter in parameters.items():
        words = said.get(name, "")
        default = None if parameter.default is parameter.empty else parameter.default
        match = _RANGE.search(words)
        if match is None:
            found[name] = Option(default, words)
            continue
        left, low, high, right = match.groups()
        interval = Range(_number(low), _number(high), f"{left}{low}, {high}{right}")
        found[name] = Option(default, words[: match.start()].rstrip(" ,") + ".", interval)
    return found


def names_in(*texts: str) -> tuple[str, ...]:
    """Return all names in values of options that separate them by commas."""
    return tuple(name.strip() for text in texts for name in text.split(",") if name.strip())


def _number(text: str) -> float:
    above, _, below = text.partition("/")
    return math.inf if text in ("inf", "∞") else float(above) / float(below or 1)
