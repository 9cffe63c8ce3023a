"""The plan: total minutes become steps for each candidate and stage, once; and the file that holds the state."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selfsup.base.writing import LOCK, part_name, write_atomically
from selfsup.errors import UserError
from selfsup.run import differences

now = time.monotonic


def plan_stages(candidates: int, halving: bool) -> list[tuple[int, float]]:
    """Return for each stage how many candidates run, and up to which fraction of their whole run.

    Successive halving (Jamieson and Talwalkar, 2016): the better half continues for twice as long, until two are left,
    so that the last two have whole runs. Without `halving` every candidate has a whole run.
    """
    last = max(0, math.ceil(math.log2(candidates)) - 1) if halving else 0
    return [(math.ceil(candidates / 2**stage), 2.0 ** (stage - last)) for stage in range(last + 1)]


def whole_runs(stages: Sequence[tuple[int, float]]) -> float:
    """Return how many whole runs the stages amount to."""
    done = [0.0, *(fraction for _, fraction in stages)]
    return sum(count * (fraction - before) for (count, fraction), before in zip(stages, done, strict=False))


def plan_steps(
    seconds: Mapping[str, float], minutes: float, halving: bool, scoring: float = 0.0, other: float = 0.0
) -> dict[str, Any]:
    """Return the plan of a comparison that takes `minutes` altogether, the same training time for every candidate.

    Args:
        seconds: measured seconds per step, by candidate.
        minutes: of everything.
        halving: whether the weaker half stops at each stage.
        scoring: seconds that it takes to score a candidate once.
        other: seconds of whatever else takes part of the minutes.

    Returns:
        `stages`: how many candidates run to which fraction; `minutes_each`: of a whole run; `candidates`: by name the
        seconds per step, `steps`, the last step of each stage, and `whole`, the last of all; `left_out`: the reason for
        each candidate that could not take a step per stage, the most expensive first: without it the others have more
        time.

    Raises:
        UserError: for minutes in which no candidate can take a step per stage.
    """
    left_out: dict[str, str] = {}
    while True:
        names = [name for name in seconds if name not in left_out]
        stages = plan_stages(len(names), halving)
        elsewhere = other + scoring * sum(count for count, _ in stages)
        each = max(0.0, minutes * 60 - elsewhere) / whole_runs(stages)
        whole = {name: int(each / seconds[name]) for name in names}
        steps = {name: [max(1, round(whole[name] * fraction)) for _, fraction in stages] for name in names}
        slow = [name for name in names if whole[name] < 1 or len(set(steps[name])) < len(stages)]
        if not slow:
            break
        costliest = max(slow, key=lambda name: seconds[name])
        enough = (2 ** len(stages) * seconds[costliest] * whole_runs(stages) + elsewhere) / 60
        enough *= 1.5 if other else 1  # measuring and training from scratch take a part of the minutes
        left_out[costliest] = (
            f"--minutes {minutes:g} leave {whole[costliest]} steps of {seconds[costliest]:.2g} s; "
            f"give at least {enough:.2g}"
        )
        if len(names) == 1:
            raise UserError("; ".join(f"{name}: {reason}" for name, reason in left_out.items()))
    return {
        "stages": [{"candidates": count, "fraction": fraction} for count, fraction in stages],
        "minutes_each": each / 60,
        "candidates": {
            name: {"seconds_per_step": seconds[name], "steps": steps[name], "whole": steps[name][-1]} for name in names
        },
        "left_out": left_out,
    }


@dataclass
class State:
    """The content of compare.json: the request (`asked`), the `plan`, and the results so far.

    `scores` has one entry per stage for each candidate; `failed` the reason where one cannot continue; `spent` what was
    done, and the seconds that it took.
    """

    path: Path
    asked: dict[str, Any]
    plan: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    spent: list[dict[str, Any]] = field(default_factory=list)

    @contextmanager
    def timed(self, what: str, **about: Any) -> Iterator[None]:
        """Add the seconds that the block takes to `spent`."""
        began = now()
        try:
            yield
        finally:
            entry = {"what": what, **about}
            found = next((one for one in self.spent if one.items() >= entry.items()), None)
            if found is None:
                self.spent.append(found := entry | {"seconds": 0.0})
            found["seconds"] = round(found["seconds"] + now() - began, 3)

    def seconds(self, *what: str) -> float:
        """Return the seconds that were spent on something, or on everything."""
        return sum(float(one["seconds"]) for one in self.spent if not what or one["what"] in what)

    def save(self) -> None:
        """Write the file, so that whoever reads it sees the old content or the new."""
        names = ("asked", "plan", "failed", "scores", "spent")
        write_atomically(self.path, json.dumps({name: getattr(self, name) for name in names}).encode())


def open_state(path: Path, asked: dict[str, Any]) -> State:
    """Return the state in a file, or a fresh one.

    Raises `UserError` for a file of another comparison, with the differences, and for one that is damaged.
    """
    asked = json.loads(json.dumps(asked))
    if not path.exists():
        if path.parent.exists() and not {other.name for other in path.parent.iterdir()} <= {LOCK, part_name(path.name)}:
            raise UserError(f"{path.parent} does not hold a comparison; give another --out")
        return State(path, asked)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        state = State(path, *(content[key] for key in ("asked", "plan", "scores", "failed", "spent")))
        different = differences(state.asked, asked)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged: {error}; give another --out") from None
    if different:
        raise UserError(f"{path.parent} holds another comparison; give another --out. " + "; ".join(different))
    return state
