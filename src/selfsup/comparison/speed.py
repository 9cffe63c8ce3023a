"""How long a training step takes, measured in the loop itself."""

from __future__ import annotations

import copy
import time

from lightning_fabric import Fabric

from selfsup.source import Source
from selfsup.task import Task, Views
from selfsup.train.fit import fit
from selfsup.train.plan import Plan

SECONDS = 3.0  # of measuring, apart from the first steps
FEW, MOST = 3, 200  # steps that are measured


def step_seconds(task: Task, source: Source, views: Views, fabric: Fabric, batch_size: int, seed: int) -> float:
    """Return the mean seconds of a step, including everything: data, optimizer, `after_step`, logging.

    It is the mean over some seconds, whereas `train.precision.step_seconds` takes the fastest step without its update:
    budgets are equal only if all costs of a task count. `task` stays as it is. Raises what `fit` raises.
    """

    def spent(steps: int) -> float:
        plan = Plan(steps=10**6, batch_size=batch_size, seed=seed)
        measured = copy.deepcopy(task)
        began = time.perf_counter()
        fit(measured, source, views, plan, fabric, until=steps, quiet=True)
        return time.perf_counter() - began

    spent(FEW)  # compiles and allocates
    few = spent(FEW)
    steps = max(FEW, min(MOST, int(SECONDS / few * FEW)))
    more = spent(FEW + steps)
    return max(more - few, more / 10) / steps  # the set-up, which both have, cancels; noise must not make it negative
