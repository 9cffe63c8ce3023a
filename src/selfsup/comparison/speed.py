"""How long the training steps of several tasks take, measured in the loop itself, in rounds."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Mapping
from statistics import median
from typing import NamedTuple

from lightning_fabric import Fabric

from selfsup.source import Source
from selfsup.task import Task, Views
from selfsup.train.fit import fit
from selfsup.train.plan import Plan
from selfsup.train.signals import Interrupted

SECONDS = 3.0  # of measuring a task, apart from the first steps, if there is time
FEW, MOST = 3, 200  # steps that are measured in a round
ROUNDS = 3


class Trial(NamedTuple):
    """What is measured; it stays as it is."""

    task: Task
    source: Source
    views: Views
    batch_size: int


class Spent(NamedTuple):
    """Seconds by the clock, and of all processors."""

    wall: float
    cpu: float


def speeds(
    trials: Mapping[str, Trial], fabric: Fabric, seed: int, budget: float
) -> tuple[dict[str, float], dict[str, Exception]]:
    """Return the seconds of a step of each task, and what the others raised.

    A step includes everything: data, optimizer, `after_step`, logging; budgets are equal only if all costs of a task
    count. The tasks take turns in up to three rounds, and the median counts. On a CPU the ratio of two tasks is that of
    their processor time, which another program on the machine does not change; how long a second of it takes by the
    clock is one number for all. Measuring takes at most about `budget` seconds, but at least 15 steps of each task.
    """

    def spent(trial: Trial, steps: int) -> Spent:
        plan = Plan(steps=10**6, batch_size=trial.batch_size, seed=seed)
        measured, before = copy.deepcopy(trial.task), _now()
        fit(measured, trial.source, trial.views, plan, fabric, until=steps, quiet=True)
        now = _now()
        return Spent(now.wall - before.wall, now.cpu - before.cpu)

    steps: dict[str, int] = {}
    failed: dict[str, Exception] = {}
    found: dict[str, list[Spent]] = {name: [] for name in trials}
    each = min(SECONDS, budget / 2 / max(1, len(trials))) / ROUNDS
    end = _now().wall + budget
    for turn in range(ROUNDS):
        began = _now().wall
        for name in [name for name in trials if name not in failed]:
            try:
                if turn == 0:
                    spent(trials[name], FEW)  # compiles and allocates
                few = spent(trials[name], FEW)
                steps.setdefault(name, max(FEW, min(MOST, int(each / max(few.wall, 1e-6) * FEW))))
                more = spent(trials[name], FEW + steps[name])
            except Interrupted:
                raise
            except Exception as error:  # whatever a task does wrong, the others can still be compared
                failed[name] = error
                continue
            # the set-up, which both have, cancels; noise must not make a step negative
            found[name].append(Spent(*(max(b - a, b / 10) / steps[name] for a, b in zip(few, more, strict=True))))
        if 2 * _now().wall - began > end:
            break  # another round would take too long
    kept = {name: rounds for name, rounds in found.items() if name not in failed}
    wall = {name: median(one.wall for one in rounds) for name, rounds in kept.items()}
    if fabric.device.type != "cpu" or not wall:
        return wall, failed
    cpu = {name: max(median(one.cpu for one in rounds), 1e-6) for name, rounds in kept.items()}
    pace = median(wall[name] / cpu[name] for name in wall)
    return {name: cpu[name] * pace for name in wall}, failed


def _now() -> Spent:
    times = os.times()
    return Spent(time.perf_counter(), times.user + times.system + times.children_user + times.children_system)
