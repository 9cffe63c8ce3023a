"""Observations of episodes with their states: which variables can be read, and how the observations are split.

All observations of an episode are on the same side of the split.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfsup.data.trajectory import Episodes, Instants, observations
from selfsup.errors import UserError
from selfsup.evaluation.frame_parts import folds_of
from selfsup.source import Broken, Labels, Source
from selfsup.spec import TrajectorySpec

MOST = 5000  # observations of a side of the split, or of all folds together, that are used; half of it for classes
VALUES = 256  # different whole numbers up to which a variable is read as classes
ENTROPY = 0.6  # of the classes of a variable, as a fraction of that of as many equal ones; below it is left out


@dataclass(frozen=True)
class Variable:
    """A state variable: the numbers (n,) of all observations, or their classes if `classes` > 0."""

    name: str
    values: NDArray[Any]
    classes: int

    @property
    def category(self) -> str:
        """The letters with which its name begins: `ball` of ball_x."""
        found = re.match("[A-Za-z]*", self.name)
        return found[0] if found and found[0] else self.name


@dataclass(frozen=True)
class StateParts:
    """The observations (n,) that are used, of the data and of the test data one after the other.

    `moments` of each side; `fold` (n,) of each observation: fold f is measured on once, with all others to draw labels
    from; -1 is never measured on. `frames` (n,) are hashes of what is seen.
    """

    sources: tuple[Episodes, ...]
    moments: tuple[Instants, ...]
    variables: tuple[Variable, ...]
    fold: NDArray[np.int64]
    frames: NDArray[np.int64]
    counts: dict[str, int]
    notes: tuple[str, ...]

    def labels_to_draw(self) -> Labels:
        """Return a label for each observation that can be drawn, of the fold that leaves the fewest."""
        left = [int((self.fold != fold).sum()) for fold in range(self.num_folds)]
        return Labels(np.zeros(min(left), np.int64), ("",))

    @property
    def num_folds(self) -> int:
        """How many times another part is measured on."""
        return int(self.fold.max()) + 1

    def split(self, fold: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the observations to draw labels from, and those to measure on: none that looks like one of those."""
        train, test = np.flatnonzero(self.fold != fold), np.flatnonzero(self.fold == fold)
        return train, test[~np.isin(self.frames[test], self.frames[train])]


def make_state_parts(data: Source, test: Source | None, spec: Any, seed: int, most: int = MOST) -> StateParts:
    """Return observations with their states, of which a fifth of the episodes is set aside if there is no `test`.

    Where that fifth would be fewer than 50 episodes every one is measured on in turn, by 5-fold cross-validation. At
    `most` observations to draw labels from and as many to measure on are used, drawn by the seed, or half of them where
    variables are classes: a probe of a hundred classes takes long.

    Raises `UserError` for data that are no episodes or have no states, and for episodes that cannot be split.
    """
    sources = tuple(_with_states(part, spec) for part in (data, test) if part is not None)
    names = sources[0].states
    for other in sources[1:]:
        if other.states != names:
            raise UserError(f"{sources[0].name} has the states {_few(names)}, {other.name} {_few(other.states)}")
    moments, states, folds, frames, broken = [], [], [], [], 0
    for side, source in enumerate(sources):
        some, state, seen, lost = _used(source, spec, seed, most)
        of_episode = (
            np.full(len(source), side - 1) if test is not None else folds_of(np.arange(len(source)), None, source, seed)
        )
        moments.append(some)
        states.append(state)
        frames.append(seen)
        folds.append(of_episode[some.owners])
        broken += lost
    variables, notes = _variables(names, np.concatenate(states))
    if most == MOST and any(one.classes for one in variables):
        return make_state_parts(data, test, spec, seed, MOST // 2)
    notes += (f"{broken:,} observations cannot be read, or have a state that is not known: left out",) if broken else ()
    counts = {"asked": sum(int(source.extents.sum()) for source in sources)}
    return StateParts(
        sources, tuple(moments), variables, np.concatenate(folds), np.concatenate(frames), counts, notes
    )  # fmt: skip


def _with_states(source: Source, spec: Any) -> Episodes:
    if not isinstance(spec, TrajectorySpec):
        raise UserError(f"--target states is for encoders of episodes, not of {spec.samples}")
    if not isinstance(source, Episodes):
        raise UserError(f"--target states is for episodes, and {source.name} is of the kind {source.kind}")
    if not source.states:
        raise UserError(f"{source.name} has no state variables: record it with them, or give other data")
    return source.conform(spec)


def _used(
    source: Episodes, spec: TrajectorySpec, seed: int, most: int
) -> tuple[Instants, NDArray[np.float64], NDArray[np.int64], int]:
    """Return observations drawn by the seed, their states (n, S) and hashes of what is seen (n,), and how many lack."""
    every = observations(source)
    drawn = np.sort(np.random.default_rng([seed, 2]).permutation(len(every))[:most])
    some = every.take(drawn)
    state = np.full((len(some), len(source.states)), np.nan)
    seen = np.zeros(len(some), np.int64)
    for episode in np.unique(some.owners).tolist():
        mine = np.flatnonzero(some.owners == episode)
        times = some.starts[mine]
        stacked = np.maximum(times[:, None] - np.arange(spec.stack), 0)
        numbers = np.unique(stacked)
        try:
            state[mine] = source.steps(episode).state[times]
            frames = source.frames(episode, numbers, source.cameras[0])
        except Broken:
            state[mine] = np.nan
            continue
        known = dict(zip(numbers.tolist(), map(_hash, frames), strict=True))
        seen[mine] = [_hash(np.array([known[t] for t in row])) for row in stacked.tolist()]
    kept = np.flatnonzero(np.isfinite(state).all(1))
    if len(kept) < 2:
        raise UserError(f"no observation of {source.name} has a known state")
    taken: Any = some.take(kept)
    return taken, state[kept], seen[kept], len(some) - len(kept)


def _hash(values: NDArray[Any]) -> int:
    return int.from_bytes(hashlib.blake2b(values.tobytes(), digest_size=8).digest(), "little", signed=True)


def _variables(names: Sequence[str], states: NDArray[np.float64]) -> tuple[tuple[Variable, ...], tuple[str, ...]]:
    """Return the variables that can be read, and notes on those that say too little."""
    found, constant, uneven = list[Variable](), list[str](), list[str]()
    for name, column in zip(names, states.T, strict=True):
        values, place, counts = np.unique(column, return_inverse=True, return_counts=True)
        if len(values) == 1:
            constant.append(name)
        elif len(values) > VALUES or not (values == np.round(values)).all():
            found.append(Variable(name, column, 0))
        else:
            p = counts / counts.sum()
            if -(p * np.log(p)).sum() < ENTROPY * np.log(len(values)):
                uneven.append(name)
            else:
                found.append(Variable(name, place.reshape(-1), len(values)))
    notes = [f"{_few(constant)} never change: left out"] if constant else []
    notes += [f"{_few(uneven)} nearly always have the same value (entropy below {ENTROPY:g}): left out"] * bool(uneven)
    if not found:
        raise UserError(f"no state variable can be measured: {'; '.join(notes)}")
    return tuple(found), tuple(notes)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
