"""One number of an evaluation: what a representation reaches by one protocol with a number of labels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Score:
    """The score of one representation by one protocol with `shots` labels per class (None: all labels).

    `mean` over the draws in `values`, and `half`, the half-width of its 95% interval (nan for a single value), of the
    headline metric; `also` holds mean and half-width of the other metrics. `values` are of so many `seeds` of
    pretraining, one after another, each with the same draws.
    """

    representation: str
    protocol: str
    shots: int | None
    mean: float
    half: float
    values: tuple[float, ...]
    also: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    seeds: int = 1

    @property
    def grid(self) -> NDArray[np.float64]:
        """The values (seeds, draws)."""
        return np.array(self.values).reshape(self.seeds, -1)

    def as_json(self) -> dict[str, Any]:
        """Return plain values; an interval that a single value does not have is null."""
        also = {name: {"mean": mean, "half": plain(half)} for name, (mean, half) in self.also.items()}
        return asdict(self) | {"half": plain(self.half), "also": also}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Score:
        """Return what `as_json` gave; ValueError, KeyError or TypeError for anything else."""
        also = {name: (finite(value["mean"]), number(value["half"])) for name, value in values["also"].items()}
        reached = tuple(map(finite, values["values"]))
        names, shots = (str(values["representation"]), str(values["protocol"])), values["shots"]
        seeds = values.get("seeds", 1)
        if type(seeds) is not int or seeds < 1 or len(reached) % seeds:
            raise ValueError(f"it has impossible seeds of {names[0]}")
        if not reached or not (shots is None or (type(shots) is int and shots > 0)):
            raise ValueError(f"it has an impossible score of {names[0]}")
        return cls(*names, shots, finite(values["mean"]), number(values["half"]), reached, also, seeds)


def count_labels(about: Mapping[str, Any], shots: int | None) -> float:
    """Return how many labels were drawn, a class where shots are counted per class."""
    return float(about["labels"]["all" if shots is None else str(shots)])


def measured_on(about: Mapping[str, Any]) -> str:
    """Return in words on how many samples, or frames of samples, was measured."""
    test = about["test"]
    frames = f"{test['frames']:,} frames of " if "frames" in test else ""
    return f"{frames}{test['samples']:,} test samples"


def finite(value: Any) -> float:
    """Return a finite number as it is; raise ValueError for anything else."""
    if not isinstance(value, int | float) or not abs(value) < 1e100:
        raise ValueError("it holds a value that is not a finite number")
    return float(value)


def number(value: Any) -> float:
    """Return a finite number, nan for null."""
    return math.nan if value is None else finite(value)


def plain(value: float) -> float | None:
    """Return null for nan."""
    return None if math.isnan(value) else value
