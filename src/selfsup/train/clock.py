"""A run that was given minutes is held to them: its steps are planned again a few times, as fast as they really are."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from lightning_fabric import Fabric

from selfsup.train.plan import Milestone, Plan

MILESTONES = (0.1, 0.3, 0.6, 0.85)  # fractions of the schedule at which the speed is looked at
ANNEALING = 20  # if the time is up already, one more step for so many done lets the learning rate go down


class Clock:
    """The time that a run has, and has taken.

    Args:
        seconds: what the run may take.
        record: is called with each new plan, before its first step, so that a resumed run follows it too.
        fabric: all processes go by the clock of the first one.
        began: `time.monotonic()` at the beginning.
    """

    def __init__(self, seconds: float, record: Callable[[Plan], None], fabric: Fabric, began: float) -> None:
        self.seconds, self.record, self.fabric = seconds, record, fabric
        self.began, self.measured = began, (0, began)

    def start(self, plan: Plan, step: int) -> None:
        """Begin to measure the speed at a step. What a stopped run took so far is what its last plan says."""
        last = plan.milestones[-1] if plan.milestones else Milestone(0, 0.0, 0.0)
        now = time.monotonic()
        if step:
            pace = (self.seconds - last.seconds) / max(1, plan.steps - last.step)
            self.began = now - last.seconds - pace * (step - last.step)
        self.measured = step, now

    def check(self, plan: Plan, step: int) -> Plan:
        """Return the plan to go on with after a step: another one at a milestone."""
        count = len(plan.milestones)
        if count == len(MILESTONES) or plan.progress(step) < MILESTONES[count] or step == self.measured[0]:
            return plan
        now = time.monotonic()
        pace, spent = self.fabric.broadcast(((now - self.measured[1]) / (step - self.measured[0]), now - self.began))
        left = max(int((self.seconds - spent) / pace), step // ANNEALING, 1)
        self.measured = step, now
        new = replace(
            plan, steps=step + left, milestones=(*plan.milestones, Milestone(step, plan.progress(step), spent))
        )
        self.record(new)
        return new
