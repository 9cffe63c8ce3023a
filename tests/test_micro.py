"""A micro-batch at a time: the gradient is that of the whole batch."""

import copy
import json
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from selfsup import pretrain
from selfsup.losses import nt_xent
from selfsup.task import Loss, Task
from selfsup.tasks import TASKS, find_task
from selfsup.train.micro import forward_backward, parts_of
from support.sources import images, toy
from support.tasks import built, compare, first_batch

__all__ = ["images"]  # the fixture, by its name


class Small(nn.Module):
    """Without BatchNorm unless asked for; counts the samples that it holds at once."""

    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        self.dim, self.spec, self.largest = 8, None, 0
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8) if norm else nn.Identity(), nn.Tanh())

    def forward(self, x):
        self.largest = max(self.largest, len(x))
        return self.layers(x)


class Pairs(Task):
    """Two views attract each other."""

    def views(self, spec): ...

    def panels(self, batch, guess=False): ...

    def loss(self, batch):
        first, second = (self.encoder(batch["x"][:, view]) for view in range(2))
        value = nt_xent(first, second, 0.2)
        return Loss(value, {"twice": 2 * value.detach()})


class Sizes(Pairs):
    """A mean over samples."""

    coupled = False

    def loss(self, batch):
        value = self.encoder(batch["x"][:, 0]).square().mean()
        return Loss(value, {"twice": 2 * value.detach()})


@pytest.mark.parametrize("kind", [Pairs, Sizes])
@pytest.mark.parametrize("micro", [3, 4])
def test_gradient_equals_that_of_the_whole_batch(kind: type[Task], micro: int) -> None:
    torch.manual_seed(0)
    task = kind(Small()).double()
    fabric, x = Fabric(accelerator="cpu"), torch.randn(16, 2, 6, dtype=torch.float64)
    found = []
    for size in (None, micro):
        task.zero_grad()
        task.encoder.largest = 0
        loss = forward_backward(fabric.setup_module(task), task, {"x": x}, fabric, size)
        found.append([loss.value, loss.metrics["twice"], *(p.grad.clone() for p in task.parameters())])
    assert task.encoder.largest == micro
    assert "forward" not in vars(task.encoder), "the encoder is as it was"
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-10, atol=1e-12)


def test_computing_again_leaves_the_running_statistics_alone() -> None:
    torch.manual_seed(0)
    task, twin = Pairs(Small(norm=True)), Pairs(Small(norm=True))
    twin.load_state_dict(task.state_dict())
    fabric, x = Fabric(accelerator="cpu"), torch.randn(8, 2, 6)
    forward_backward(fabric.setup_module(task), task, {"x": x}, fabric, 4)
    with torch.no_grad():
        for view in range(2):
            for begin in (0, 4):
                twin.encoder(x[begin : begin + 4, view])
    for key, value in task.state_dict().items():
        torch.testing.assert_close(value, twin.state_dict()[key])


@pytest.mark.parametrize("name", TASKS)
def test_gradient_of_every_task_equals_that_of_the_whole_batch(name: str) -> None:
    source = toy(find_task(name).kind)
    task, fabric = built(name, source).double(), Fabric(accelerator="cpu")
    batch = {k: v.double() if v.is_floating_point() else v for k, v in first_batch(task, source, 16).items()}
    task.progress, state, found = 0.5, copy.deepcopy(task.state_dict()), []
    for size in (None, 6):
        task.load_state_dict(state)
        task.zero_grad()
        loss = forward_backward(fabric.setup_module(task), task, batch, fabric, size)
        found.append(
            {"loss": loss.value} | {k: p.grad.clone() for k, p in task.named_parameters() if p.grad is not None}
        )
    norms = any(isinstance(module, _BatchNorm) for module in task.modules())
    told = compare(found[1], found[0])
    assert bool(told) == (norms and not task.coupled), told or "BatchNorm in the head did not see a micro-batch alone"


def test_a_run_in_micro_batches_is_that_of_whole_ones(tmp_path: Path) -> None:
    losses = []
    for micro in (None, 8):
        run = pretrain(
            images(), task="simclr", encoder="vit-mini", steps=4, batch_size=32, micro_batch=micro, quiet=True,
            precision="float32", out=tmp_path / str(micro),
        )  # fmt: skip
        losses.append([json.loads(line)["loss"] for line in (run.folder / "metrics.jsonl").read_text().splitlines()])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_no_part_has_one_sample():
    for size in range(2, 40):
        for micro in range(2, 20):
            parts = [part.stop - part.start for part in parts_of(size, micro)]
            assert sum(parts) == size
            assert min(parts) >= 2
            assert max(parts) <= micro + (micro == 2 and size % 2)
    assert [part.stop for part in parts_of(9, 4)] == [4, 7, 9]
    assert [part.stop for part in parts_of(5, 2)] == [2, 5]
    assert [part.stop for part in parts_of(8, 4)] == [4, 8]


@pytest.mark.parametrize("task", ["jigsaw", "relative_position", "simclr"])
def test_a_batch_with_one_sample_left_over_trains(task: str, tmp_path: Path):
    pretrain(
        torch.randint(0, 256, (5, 16, 16, 3), dtype=torch.uint8).numpy(), task=task, encoder="convnet", steps=1,
        batch_size=5, micro_batch=2, out=tmp_path / "run", quiet=True,
    )  # fmt: skip
