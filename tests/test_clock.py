"""Runs that were given minutes: they take as long as was asked for, and a resumed run is the same run."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

import selfsup
from selfsup.data.image import Arrays
from selfsup.errors import UserError
from selfsup.train.clock import MILESTONES, Clock
from selfsup.train.device import make_fabric
from selfsup.train.plan import Plan
from support.sources import noise


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time, which only the test moves."""
    time = [0.0]
    monkeypatch.setattr("selfsup.train.clock.time.monotonic", lambda: time[0])
    return time


def go(plan: Plan, clock: Clock, now: list[float], pace: Any, start: int = 0, until: int = 10**9) -> Plan:
    """Take steps that last pace(seconds), with the clock as in `fit`."""
    step = start
    while step < min(plan.steps, until):
        if step == start + 1:
            clock.start(plan, step)
        now[0] += pace(now[0])
        step += 1
        if step < plan.steps:
            plan = clock.check(plan, step)
    return plan


@pytest.mark.parametrize("factor", [0.5, 2.0])
@pytest.mark.parametrize("at", [0, 3, 9, 25, 55, 80])
@pytest.mark.parametrize("guess", [1.0, 0.3, 3.0])
def test_minutes_hold_when_the_load_changes(guess: float, at: float, factor: float, now: list[float]) -> None:
    """A machine that becomes twice as busy, or half; and a speed measured in a busy moment, or an idle one."""
    made: list[Plan] = []
    clock = Clock(100, made.append, make_fabric("cpu", "float32"), 0.0)
    first = Plan(steps=int(1000 * guess), lr=1.0)
    plan = go(first, clock, now, lambda seconds: 0.1 * (factor if seconds >= at else 1))
    known = at < 60 or guess == 1.0  # what changes after the last look cannot be helped
    assert 80 < now[0] < (120 if known else 135)
    assert made[-1] == plan
    assert len(plan.milestones) == len(MILESTONES)
    rates = [plan.lr_at(step) for step in range(plan.steps)]
    assert max(rates) > 0.99
    assert rates[-1] < 0.01, "the schedule ends"
    warmup = 0.05 * first.steps
    assert max(abs(a - b) for a, b in itertools.pairwise(rates)) < 1.5 / warmup, "the rate does not jump"
    assert plan.progress(0) == 0
    assert plan.progress(plan.steps) == 1


def test_a_resumed_run_has_the_time_that_is_left(now: list[float]) -> None:
    fabric = make_fabric("cpu", "float32")
    plan = Plan(steps=500)
    stopped = go(plan, Clock(100, lambda _: None, fabric, 0.0), now, lambda _: 0.1, until=450)
    assert now[0] == pytest.approx(45)
    now[0] += 5000  # of being stopped
    began = now[0]
    went_on = go(stopped, Clock(100, lambda _: None, fabric, began), now, lambda _: 0.1, start=450)
    assert went_on.milestones[: len(stopped.milestones)] == stopped.milestones
    assert now[0] - began == pytest.approx(55, abs=5)


def test_a_step_made_again_sees_the_number_of_steps_that_it_saw(now: list[float]) -> None:
    """A run that is killed behind a milestone resumes before it: what depends on the steps is the same again."""
    plan, seen = Plan(steps=500), {}
    clock = Clock(100, lambda new: None, make_fabric("cpu", "float32"), 0.0)
    step = 0
    while step < plan.steps:
        if step == 1:
            clock.start(plan, step)
        seen[step] = plan.steps
        now[0] += 0.1 if step < 200 else 0.3
        step += 1
        plan = clock.check(plan, step) if step < plan.steps else plan
    assert len(set(seen.values())) > 2
    assert {step: plan.steps_at(step) for step in seen} == seen


def test_without_a_look_the_schedule_is_the_plain_one() -> None:
    plan = Plan(steps=7)
    assert [plan.progress(step) for step in range(8)] == [step / 7 for step in range(8)]


def test_the_plan_is_recorded_and_a_stopped_run_ends_with_the_same_weights(
    now: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source: Arrays = noise()
    monkeypatch.setattr("selfsup.pretraining._steps", lambda *_: 20)
    train = Clock.check

    def check(self: Clock, plan: Plan, step: int) -> Plan:
        now[0] += 0.1
        return train(self, plan, step)

    monkeypatch.setattr(Clock, "check", check)
    options = {"encoder": "convnet", "minutes": 0.05, "batch_size": 4, "recalibrate": False, "quiet": True}
    # 3 seconds: 30 steps
    whole = selfsup.pretrain(source, out=tmp_path / "whole", **options)
    plan = whole.recipe["plan"]
    assert len(plan["milestones"]) == len(MILESTONES)
    assert 25 <= plan["steps"] <= 35
    last = int(plan["milestones"][-1][0]) + 1
    now[0] = 0.0
    stopped = selfsup.pretrain(source, out=tmp_path / "stopped", until=last, **options)
    assert not stopped.done
    assert stopped.recipe["plan"] == plan
    done = selfsup.pretrain(source, out=tmp_path / "stopped", **options)
    assert done.recipe["plan"] == plan
    assert done.weights_digest() == whole.weights_digest()
    assert selfsup.pretrain(source, out=tmp_path / "stopped", **options).recipe["plan"] == plan

    now[0] = 0.0
    after = selfsup.pretrain(source, out=tmp_path / "after", **options | {"recalibrate": True})
    assert 20 <= after.recipe["plan"]["steps"] < plan["steps"], "64 samples are read after the last step"

    recipe = json.loads((done.folder / "recipe.json").read_text())
    recipe["plan"]["milestones"][0][0] = 10**6
    (done.folder / "recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(UserError, match="an impossible plan"):
        selfsup.Run(done.folder)
