"""Images that a task may not expect: each gives one clear line, or a loss and gradients that are numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from selfsup.data.image import Arrays
from selfsup.encoders import build_encoder
from selfsup.errors import UserError
from selfsup.source import Labels
from selfsup.tasks import TASKS, find_task
from selfsup.tasks.resolve import resolve_task
from selfsup.views.loader import batches
from support.tasks import REQUIRED

COUNT = 8
ODD: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "smaller than any grid": lambda g: g.integers(0, 255, (COUNT, 6, 6, 3)),
    "as small as a patch": lambda g: g.integers(0, 255, (COUNT, 8, 8, 3)),
    "not square": lambda g: g.integers(0, 255, (COUNT, 48, 20, 3)),
    "one channel": lambda g: g.integers(0, 255, (COUNT, 28, 28, 1)),
    "four channels": lambda g: g.integers(0, 255, (COUNT, 28, 28, 4)),
    "constant": lambda g: np.full((COUNT, 28, 28, 3), 128),
    "two images": lambda g: g.integers(0, 255, (2, 28, 28, 3)),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", [name for name in TASKS if find_task(name).kind == "image"])
def test_odd_images(name: str, odd: str) -> None:
    x = ODD[odd](np.random.default_rng(0)).astype(np.uint8)
    source = Arrays(x, Labels.of([f"class {i % 2}" for i in range(len(x))]), odd)
    torch.manual_seed(0)
    try:
        loss, gradients = one_step(name, source)
    except UserError as error:
        told = str(error)
        assert len(told) > 20
        assert "\n" not in told
        return
    assert loss.isfinite(), float(loss)
    for key, gradient in gradients.items():
        assert gradient.isfinite().all(), key


def one_step(name: str, source: Arrays) -> tuple[Tensor, dict[str, Tensor]]:
    _, kind, values, used = resolve_task(name, source, REQUIRED.get(name, {}))
    task = kind(build_encoder(kind.small_encoder, used.spec()), **values)
    used, views = task.samples(used), task.views(used.spec())
    fetched = next(iter(batches(used, views, batch_size=len(used), seed=0, start=0, steps=1, workers=0)))
    batch = views.finish(fetched.batch)
    loss = task.loss(batch).value
    loss.backward()
    task.after_step()
    with torch.no_grad():
        assert task.eval().panels(batch, guess=True)
    return loss, {key: p.grad for key, p in task.named_parameters() if p.grad is not None}
