"""How long the training steps of several tasks take, measured in the loop itself, in rounds."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Mapping
from statistics import median
from typing import NamedTuple

import torch
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
    """Seconds by the clock, and of all processors (batches are made in threads)."""

    wall: float
    cpu: float


def speeds(
    trials: Mapping[str, Trial], fabric: Fabric, seed: int, budget: float
) -> tuple[dict[str, float], dict[str, Exception]]:
    """Return the seconds of a step of each task, and what the others raised.

    A step includes everything from one `after_step` to the next: data, optimizer, logging; budgets are equal only if
    all costs of a task count. Setting up and the first step, which compiles, do not count. The tasks take
    turns in up to three rounds, and the median counts. On a CPU the ratio of two tasks is that of their processor time,
    which another program on the machine does not change; how long a second of it takes by the clock is one number for
    all. Measuring takes at most about `budget` seconds, but at least four steps of each task.
    """

    def spent(trial: Trial, steps: int) -> Spent:
        plan, measured, times = Plan(10**6, batch_size=trial.batch_size, seed=seed), copy.deepcopy(trial.task), []
        own = measured.after_step

        def after_step() -> None:
            own()
            times.append(_now(fabric.device))

        measured.after_step = after_step  # type: ignore[method-assign]
        fit(measured, trial.source, trial.views, plan, fabric, until=1 + steps, quiet=True)
        return Spent(*((last - first) / steps for first, last in zip(times[0], times[-1], strict=True)))

    steps: dict[str, int] = {}
    failed: dict[str, Exception] = {}
    found: dict[str, list[Spent]] = {name: [] for name in trials}
    each = min(SECONDS, budget / 2 / max(1, len(trials))) / ROUNDS
    end = _now(fabric.device).wall + budget
    for _ in range(ROUNDS):
        began = _now(fabric.device).wall
        for name in [name for name in trials if name not in failed]:
            try:
                found[name].append(spent(trials[name], steps.get(name, FEW)))
            except Interrupted:
                raise
            except Exception as error:  # whatever a task does wrong, the others can still be compared
                failed[name] = error
                continue
            steps[name] = max(FEW, min(MOST, int(each / max(found[name][0].wall, 1e-6))))
        if 2 * _now(fabric.device).wall - began > end:
            break  # another round would take too long
    kept = {name: rounds for name, rounds in found.items() if name not in failed}
    wall = {name: max(median(one.wall for one in rounds), 1e-6) for name, rounds in kept.items()}
    if fabric.device.type != "cpu" or not wall:
        return wall, failed
    cpu = {name: max(median(one.cpu for one in rounds), 1e-6) for name, rounds in kept.items()}
    pace = median(wall[name] / cpu[name] for name in wall)
    return {name: cpu[name] * pace for name in wall}, failed


def _now(device: torch.device) -> Spent:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    times = os.times()
    return Spent(time.perf_counter(), times.user + times.system)
