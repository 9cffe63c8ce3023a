"""Work in copies of the process: order, errors, kills."""

import os
import signal
import sys
import time

import pytest
import torch

from selfsup.base.processes import side_by_side
from selfsup.errors import RunFailed, UserError

pytestmark = pytest.mark.usefixtures("copies")
CPU = torch.device("cpu")
linux = pytest.mark.skipif(sys.platform != "linux", reason="copies are made on Linux alone")


def test_results_are_in_order_and_counted():
    counted = []
    found = side_by_side(lambda item: item * item, list(range(9)), CPU, counted.append)
    assert found == [item * item for item in range(9)]
    assert counted == [1] * 9
    assert side_by_side(lambda item: item, [], CPU) == []


def test_gradients_of_a_copy_are_those_of_the_process():
    torch.manual_seed(0)
    model, x = torch.nn.Conv2d(3, 8, 3), torch.randn(4, 3, 16, 16)

    def work(number: int) -> float:
        return float(torch.autograd.grad(model(x * number).square().sum(), model.weight)[0].sum())

    own = [work(number) for number in range(4)]  # the engine of gradients has run here before it is copied
    assert side_by_side(work, range(4), CPU) == pytest.approx(own, rel=1e-4)


@linux
def test_a_copy_has_one_thread_and_other_errors_become_one_line():
    assert side_by_side(lambda _: torch.get_num_threads(), range(3), CPU) == [1, 1, 1]

    def fails(item: int) -> int:
        raise (UserError("no label") if item else ZeroDivisionError("by zero"))

    with pytest.raises(UserError, match="no label"):
        side_by_side(fails, [1], CPU)
    with pytest.raises(RunFailed, match="ZeroDivisionError: by zero"):
        side_by_side(fails, [0], CPU)


@linux
def test_a_killed_copy_ends_the_work():
    def work(item: int) -> int:
        if item:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(30)
        return item

    began = time.monotonic()
    with pytest.raises(RunFailed, match="was killed"):
        side_by_side(work, [1, 1], CPU)
    assert time.monotonic() - began < 20
