"""The clock of a comparison: what its minutes are for, and what is planned again where the machine became slower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from selfsup.comparison.plan import State
from selfsup.train.plan import Milestone, Plan

SCRATCH = "from scratch"
MEASURING = 0.1  # of the minutes, at most, to measure speeds
TRAINED = 0.2  # of the minutes, at most, to train from scratch
LATE = 1.2  # times the time that is left: if the rest takes longer, it is planned again
LEAST = 0.1  # of the steps that are left, however late it is


def plan_again(candidates: Sequence[dict[str, Any]], stage: int, factor: float, seconds: float) -> None:
    """Plan the rest of runs again, from `stage` on, all with `factor` times the steps that were left.

    A run keeps its place in the schedule (`train.plan.Milestone`), and reaches the end of each stage at the same place.
    """
    for entry in candidates:
        steps, done = entry["steps"], entry["done"]
        milestones = entry.setdefault("milestones", [])
        before = Plan(steps[-1], milestones=tuple(Milestone(*one) for one in milestones))
        milestones.append([done, before.progress(done), seconds])
        for place in range(stage, len(steps)):
            least = max(done, steps[place - 1] if place > stage else done) + 1
            steps[place] = max(least, done + round(factor * (steps[place] - done)))


def ahead(state: State, stage: int, running: Sequence[str]) -> dict[str, float]:
    """Return the seconds that everything takes from a stage on, at the measured speeds."""
    plan = state.plan
    entries = {name: plan["candidates"][name] for name in running if name not in state.failed}
    counts = [len(entries), *(min(len(entries), one["candidates"]) for one in plan["stages"][stage + 1 :])]
    training = sum(e["seconds_per_step"] * max(0, e["steps"][stage] - e.get("done", 0)) for e in entries.values())
    for place, count in enumerate(counts[1:], stage + 1):
        each = [e["seconds_per_step"] * (e["steps"][place] - e["steps"][place - 1]) for e in entries.values()]
        training += count * float(np.mean(each or [0.0]))
    scored = sum(len(state.scores.get(name, [])) > stage for name in entries)
    seconds = {"training": training, "scoring": plan["scoring"] * (sum(counts) - scored)}
    if "scratch" in plan:
        seconds[SCRATCH] = plan["scratch"]["draws"] * plan["scratch"]["seconds"]
    return seconds


def check_time(state: State, stage: int, leg: float, running: Sequence[str]) -> None:
    """Record, after some training, what was spent; where the rest takes much longer than what is left, plan it again.

    All have the same part of the steps that they had left. What was recorded before is not decided again.
    """
    plan, running, at = state.plan, [name for name in running if name not in state.failed], [stage, leg]
    alive = {name: entry for name, entry in plan["candidates"].items() if name not in state.failed}
    planned = sum(entry["seconds_per_step"] * entry.get("done", 0) for entry in alive.values())
    if not planned or not running or at in [one["at"] for one in plan["milestones"]]:
        return
    spent, rest, factor = state.seconds(), ahead(state, stage, running), 1.0
    left = 60 * state.asked["minutes"] - spent
    pace = sum(one["seconds"] for one in state.spent if one["what"] == "training" and one["of"] in alive) / planned
    if pace * sum(rest.values()) > LATE * left:
        fixed = rest["scoring"] + min(rest.get(SCRATCH, 0.0), plan.get("scratch", {}).get("seconds", 0.0))
        factor = min(1.0, max(LEAST, (left / pace - fixed) / max(rest["training"], 1e-9)))
        entries = [plan["candidates"][name] for name in running]
        plan_again([one for one in entries if one["done"] < one["steps"][-1]], stage, factor, spent)
    plan["milestones"].append({"at": at, "seconds": spent, "pace": round(pace, 3), "factor": round(factor, 3)})
    state.save()


def parts_of_time(seconds: Mapping[str, float], tasks: int) -> str:
    """Return in words what the minutes are for."""
    words = {"training": f"training {tasks} task{'s' * (tasks != 1)}", SCRATCH: f"training {SCRATCH}"}
    return ", ".join(f"{value / 60:.1f} {words.get(what, what)}" for what, value in seconds.items())
