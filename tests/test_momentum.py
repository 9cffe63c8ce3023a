"""The EMA copy, its momentum during a run, and the queue."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from selfsup.nn.ema import Momentum, ema_update, first_momentum, frozen_copy
from selfsup.nn.queue import Queue
from support.sources import images
from support.tasks import built


def test_follow_is_the_weighted_mean() -> None:
    fast = nn.Linear(3, 2)
    slow = frozen_copy(fast)
    assert not any(p.requires_grad for p in slow.parameters())
    before = slow.weight.clone()
    nn.init.ones_(fast.weight)
    ema_update(slow, fast, 0.9)
    torch.testing.assert_close(slow.weight, 0.9 * before + 0.1)


def test_the_first_momentum_follows_the_number_of_steps() -> None:
    assert [first_momentum(steps) for steps in (0, 40, 400)] == pytest.approx([0.97] * 3)
    assert [first_momentum(steps) for steps in (2_000, 4_000)] == pytest.approx([0.98, 0.99])
    assert [first_momentum(steps) for steps in (10_000, 40_000)] == pytest.approx([0.996] * 2)


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("steps", [400, 4_000, 40_000])
def test_nothing_of_the_start_is_left_however_many_steps(steps: int, linear: bool) -> None:
    momentum = Momentum(None, linear)
    values = [momentum.at(step / steps, steps) for step in range(steps)]
    assert all(before <= after for before, after in pairwise(values))
    assert math.prod(values) < (0.003 if steps == 400 else 1e-8)
    assert 1 - values[-1] < 2 / steps, "it ends at 1"
    assert momentum.at(0.5, steps) == pytest.approx((1 + first_momentum(steps)) / 2)
    fixed = Momentum(0.99, linear)
    left = math.prod(fixed.at(step / steps, steps) for step in range(steps))
    assert (left > 0.1) == (steps == 400), "which is why it is not the same for every run"


def test_the_metric_is_what_is_left_of_the_start_of_byol() -> None:
    task = built("byol", images())
    with torch.no_grad():
        for online, target in ((task.encoder, task.target[0]), (task.projector, task.target[1])):
            for now, start in zip(online.parameters(), target.parameters(), strict=True):
                now.zero_()
                start.fill_(1)
    for step in range(30):
        task.progress, task.steps = step / 60, 60 if step < 20 else 600  # a run that is planned again
        task.after_step()
    assert 0.1 < task.momentum.start_left < 0.6
    for parameter in task.target.parameters():
        torch.testing.assert_close(parameter, task.momentum.start_left.expand_as(parameter), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["byol", "mocov3", "dino", "ibot", "dinov2", "ijepa", "data2vec"])
def test_every_ema_logs_what_is_left_of_its_start(name: str) -> None:
    task = built(name, images())
    x = torch.randn(4, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    batch = {"x": x[:, 0] if name in ("ijepa", "data2vec") else x, "noise": torch.arange(4)}
    task.steps = 100
    first = task.loss(batch).metrics["start_left"]
    task.after_step()
    assert task.loss(batch).metrics["start_left"] == pytest.approx(0.97)
    assert first == 1, "a logged value does not change later"
    assert task.state_dict()["momentum.start_left"] == pytest.approx(0.97), "it is in the checkpoint"


def test_queue_replaces_the_oldest_and_is_in_the_state() -> None:
    queue = Queue(5, 2)
    for value in (1.0, 2.0, 3.0):
        queue.put(torch.full((2, 2), value))
    assert queue.rows[:, 0].tolist() == [3.0, 1.0, 2.0, 2.0, 3.0]
    copy = Queue(5, 2)
    copy.load_state_dict(queue.state_dict())
    copy.put(torch.full((1, 2), 4.0))
    assert copy.rows[:, 0].tolist() == [3.0, 4.0, 2.0, 2.0, 3.0]
    copy.put(torch.arange(14.0).view(7, 2))
    assert sorted(copy.rows[:, 0].tolist()) == [4.0, 6.0, 8.0, 10.0, 12.0]
