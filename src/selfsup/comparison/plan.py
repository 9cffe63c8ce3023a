"""The plan: total minutes become steps for each candidate and rung, once; and the file that keeps plan and readings."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selfsup.errors import UserError
from selfsup.run import differences
from selfsup.writing import LOCK, part_name, write_atomically


def rungs(candidates: int, halving: bool) -> list[tuple[int, float]]:
    """Return for each rung how many candidates run, and up to which share of their whole run.

    Successive halving (Jamieson and Talwalkar, 2016): the better half goes on for twice as long, until two are left,
    so that the last two have whole runs. Without `halving` everybody has a whole run.
    """
    last = max(0, math.ceil(math.log2(candidates)) - 1) if halving else 0
    return [(math.ceil(candidates / 2**rung), 2.0 ** (rung - last)) for rung in range(last + 1)]


def whole_runs(stages: Sequence[tuple[int, float]]) -> float:
    """Return how many whole runs the rungs take together."""
    done = [0.0, *(share for _, share in stages)]
    return sum(count * (share - before) for (count, share), before in zip(stages, done, strict=False))


def plan_steps(seconds: Mapping[str, float], minutes: float, halving: bool) -> dict[str, Any]:
    """Return the plan of a comparison that trains for `minutes` altogether, the same time for every candidate.

    Args:
        seconds: measured seconds a step, by candidate.
        minutes: of training, over all candidates and rungs.
        halving: whether the weaker half stops at each rung.

    Returns:
        `rungs`: how many run to which share; `minutes_each`: of a whole run; `candidates`: by name the seconds a step
        and `steps`, the last step of each rung.

    Raises:
        UserError: for minutes in which a candidate cannot take a step a rung.
    """
    stages = rungs(len(seconds), halving)
    each = minutes * 60 / whole_runs(stages)
    planned = {}
    for name, cost in seconds.items():
        whole = int(each / cost)
        steps = [max(1, round(whole * share)) for _, share in stages]
        if whole < 1 or len(set(steps)) < len(steps):
            least = 2 ** len(steps) * cost * whole_runs(stages) / 60
            raise UserError(
                f"--minutes {minutes:g} leave {whole} steps of {cost:.2g} s for {name}; give at least {least:.2g}"
            )
        planned[name] = {"seconds_per_step": cost, "steps": steps}
    return {
        "rungs": [{"candidates": count, "share": share} for count, share in stages],
        "minutes_each": each / 60,
        "candidates": planned,
    }


@dataclass
class State:
    """What compare.json holds: what was `asked`, the `plan`, and what has been found so far.

    `readings` has for each candidate one entry a rung; `failed` the reason where one cannot go on.
    """

    path: Path
    asked: dict[str, Any]
    plan: dict[str, Any] = field(default_factory=dict)
    readings: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def save(self) -> None:
        """Write the file, so that a reader sees the old content or the new."""
        content = {"asked": self.asked, "plan": self.plan, "failed": self.failed, "readings": self.readings}
        write_atomically(self.path, json.dumps(content).encode())


def open_state(path: Path, asked: dict[str, Any]) -> State:
    """Return the state in a file, or a fresh one.

    Raises `UserError` for a file of another comparison, with the differences, and for one that is damaged.
    """
    asked = json.loads(json.dumps(asked))
    if not path.exists():
        if path.parent.exists() and not {other.name for other in path.parent.iterdir()} <= {LOCK, part_name(path.name)}:
            raise UserError(f"{path.parent} holds no comparison; give another --out")
        return State(path, asked)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        state = State(path, *(content[key] for key in ("asked", "plan", "readings", "failed")))
        different = differences(state.asked, asked)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged: {error}; give another --out") from None
    if different:
        raise UserError(f"{path.parent} holds another comparison; give another --out. " + "; ".join(different))
    return state
