"""What the docstring of a task says about its hyper-parameters: a sentence for each, and its range.

An entry of `Args:` ends with the range where there is one, in the notation of intervals: "in (0, 1]", "in [1, inf)".
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from selfsup.errors import UserError
from selfsup.task import Task


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
    """A hyper-parameter: its default (None: required, or from the data), what it is, and its range if it has one."""

    default: Any
    help: str
    range: Range | None


_ENTRY = re.compile(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", re.M)
_RANGE = re.compile(r",? in ([\[(])\s*([-\w./]+), ([-\w./]+)\s*([\])])\.?$")


def read_args(text: str) -> dict[str, str]:
    """Return the entries of the section `Args:` of a docstring, each in one line."""
    _, found, rest = inspect.cleandoc(text).partition("\nArgs:\n")
    section = re.split(r"\n(?=\S)", rest)[0]
    return {name: " ".join(words.split()) for name, words in _ENTRY.findall(section)} if found else {}


def options(kind: type[Task]) -> dict[str, Option]:
    """Return the hyper-parameters of a task with what its docstring says about them."""
    said = read_args(kind.__doc__ or "")
    found = {}
    for name, parameter in kind.hyperparameters().items():
        words = said.get(name, "")
        default = None if parameter.default is parameter.empty else parameter.default
        match = _RANGE.search(words)
        if match is None:
            found[name] = Option(default, words, None)
            continue
        left, low, high, right = match.groups()
        interval = Range(_number(low), _number(high), f"{left}{low}, {high}{right}")
        found[name] = Option(default, words[: match.start()].rstrip(" ,") + ".", interval)
    return found


def check_ranges(kind: type[Task], given: Mapping[str, Any]) -> None:
    """Raise `UserError` for the first number that is not in the range that the docstring states."""
    known = options(kind)
    for name, value in given.items():
        interval = known[name].range if name in known else None
        if interval and isinstance(value, int | float) and not interval.holds(value):
            raise UserError(f"--{name.replace('_', '-')} must be in {interval.text}, not {value}")


def _number(text: str) -> float:
    above, _, below = text.partition("/")
    return math.inf if text in ("inf", "∞") else float(above) / float(below or 1)
