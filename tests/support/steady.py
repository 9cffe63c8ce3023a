"""A comparison that does not depend on the machine: steps take a fixed time, everything else none."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from selfsup.comparison import judging, plan, tournament
from selfsup.comparison.clock import SCRATCH
from selfsup.evaluation import linear, propagate
from selfsup.evaluation.probe import fit_probe


def steady(put: Callable[[Any, str, Any], None], seconds: float = 0.15) -> None:
    """Fix the clock, by `setattr` or that of a `monkeypatch`."""

    def speeds(trials: dict[str, Any], *_: object) -> tuple[dict[str, float], dict[str, Exception]]:
        return {name: 0.0 if name == SCRATCH else seconds for name in trials}, {}

    put(tournament, "speeds", speeds)
    put(judging, "ENOUGH", 0)  # cross-validation takes five graphs instead of one
    put(judging, "side_by_side", lambda work, items, device: [work(item) for item in items])  # without copies
    put(linear, "fit_probe", partial(fit_probe, penalties=[0.1]))  # nor choosing the penalty
    put(propagate, "trust", lambda *_: 0.5)  # telling it takes five times the time of reading
    for module in (plan, tournament):
        put(module, "now", lambda: 0.0)


def quick_scratch(put: Callable[[Any, str, Any], None]) -> None:
    """Leave out the hundreds of steps that training from scratch takes for each draw."""

    def untrained(make: Callable[[], Any], *given: Any) -> nn.Module:
        torch.manual_seed(given[-1])
        task = make()
        return nn.Sequential(task.encoder, task.head)

    put(judging, "train_on_labels", untrained)
