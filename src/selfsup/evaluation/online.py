"""The online probe: how useful is the representation so far? Measured while it is trained, without disturbing it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from selfsup.base.turns import own_turn
from selfsup.errors import RunFailed, UserError
from selfsup.evaluation.draws import nested_subsets
from selfsup.evaluation.knn import fit_knn
from selfsup.evaluation.probe import fit_probe
from selfsup.evaluation.targets import split
from selfsup.source import Broken, Source
from selfsup.views import plain_views

SAMPLES = 500  # half to fit, half to measure
TIME_FRACTION = 0.02  # of the time since the start, at most
PENALTY = 0.1  # no cross-validation: the accuracy is only compared with itself


def _linear(x: Tensor, y: NDArray[np.int64], classes: int, test: Tensor) -> NDArray[np.int64]:
    return fit_probe(x, y, classes, penalties=(PENALTY,)).predict(test)


def _knn(x: Tensor, y: NDArray[np.int64], classes: int, test: Tensor) -> NDArray[np.int64]:
    return fit_knn(x, y, classes).predict(test)


READERS = {"linear": _linear, "knn": _knn}


class OnlineProbe:
    """A probe on up to 500 labelled samples, half of each class to fit and half to measure, always the same.

    It measures whenever that keeps its part of the time within 2%, or at the first log point after each `every` steps,
    and after the last step whatever that costs. It leaves no trace in the run: no random number is drawn, no statistic
    moves. Its accuracy shows the trend; `selfsup evaluate` gives results.

    Args:
        source: labelled data.
        spec: the samples that the encoder takes.
        device: the device of the encoder.
        seed: draws the samples, and which half they are in.
        reader: a key of `READERS`.
        every: steps between two measurements; None: as often as the time allows.

    Raises:
        UserError: for labels of fewer than two classes with two samples each.
    """

    def __init__(
        self,
        source: Source,
        spec: Any,
        device: torch.device,
        seed: int,
        reader: str = "linear",
        every: int | None = None,
    ) -> None:
        labels = source.labels
        labelled = np.flatnonzero(labels.ids >= 0) if labels is not None else np.empty(0, np.int64)
        if len(labelled) < 4 or labels is None:
            raise UserError(
                f"--probe {source.name} has no labels: give --probe-labels folders, a CSV file or an .npz file"
            )
        source = source.conform(spec)
        count = min(SAMPLES, len(labelled))
        drawn = nested_subsets(len(labelled), [count], 1, seed)[0][count]
        some = source.take(labelled[drawn])
        parts = [some.take(numbers) for numbers in split(some, seed, 0.5)]
        labels.check_single()
        ids = [part.labels.ids for part in parts if part.labels is not None]
        if len(np.unique(ids[0])) < 2:
            raise UserError(f"--probe {source.name} needs labels of at least two classes")
        self.classes, self.device, self.views = len(labels.classes), device, plain_views(spec)
        try:
            self.batches = [self._read(part, half) for half, part in enumerate(parts)]
        except Broken as error:
            raise RunFailed(f"--probe {source.name}: {error}") from None
        self.began, self.spent, self.cost = time.monotonic(), 0.0, 0.0
        self.read, self.every, self.last = READERS[reader], every, 0

    def _read(self, part: Source, half: int) -> tuple[list[dict[str, Tensor]], NDArray[np.int64]]:
        assert part.labels is not None
        batches, ids = [], []
        for rows in np.array_split(np.arange(len(part)), -(-len(part) // 128)):
            batch = dict(self.views.fetch(part, rows, 0, half).batch)
            ids.append(part.labels.ids[batch["index"].numpy()])  # a broken sample was replaced by another one
            batches.append({"x": batch["x"]})
        return batches, np.concatenate(ids)

    def measure(self, encoder: nn.Module, step: int, last: bool) -> dict[str, float]:
        """Return {"probe": accuracy}, or nothing where it is too early to measure again. `step`: how many are done."""
        began = time.monotonic()
        if self.every is not None:
            early = step // self.every <= self.last // self.every
        else:
            early = self.spent + max(self.cost, 0.1) > TIME_FRACTION * (began - self.began)
        if early and not last:
            return {}
        self.last = step
        modes = {module: module.training for module in encoder.modules()}
        devices = [self.device] if self.device.type == "cuda" else []
        try:
            with own_turn(), torch.no_grad(), torch.random.fork_rng(devices):
                encoder.eval()
                (x, y), (test_x, truth) = ((self._encode(encoder, batches), ids) for batches, ids in self.batches)
                accuracy = float((self.read(x, y, self.classes, test_x) == truth).mean())
        except UserError:
            accuracy = float("nan")  # features that are not finite: the loss will say so
        finally:
            for module, mode in modes.items():
                module.training = mode
        self.cost = time.monotonic() - began
        self.spent += self.cost
        return {"probe": accuracy}

    def _encode(self, encoder: nn.Module, batches: list[dict[str, Tensor]]) -> Tensor:
        moved = ({key: value.to(self.device) for key, value in batch.items()} for batch in batches)
        return torch.cat([encoder(self.views.finish(batch)["x"]).float() for batch in moved])
