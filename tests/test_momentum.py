"""The EMA copy and the queue."""

import torch
from torch import nn

from selfsup.nn.ema import ema_update, frozen_copy
from selfsup.nn.queue import Queue


def test_follow_is_the_weighted_mean() -> None:
    fast = nn.Linear(3, 2)
    slow = frozen_copy(fast)
    assert not any(p.requires_grad for p in slow.parameters())
    before = slow.weight.clone()
    nn.init.ones_(fast.weight)
    ema_update(slow, fast, 0.9)
    torch.testing.assert_close(slow.weight, 0.9 * before + 0.1)


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
