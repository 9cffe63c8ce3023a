"""How a candidate is scored at a stage: few-label accuracy where there are labels, else label-free measures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import nn

from selfsup.errors import UserError
from selfsup.evaluation.baselines import baseline
from selfsup.evaluation.draws import interval, nested_draws
from selfsup.evaluation.features import extract
from selfsup.evaluation.few_labels import train_on_labels
from selfsup.evaluation.parts import align
from selfsup.evaluation.probe import fit_probe
from selfsup.source import Source
from selfsup.task import Task

ITEMS = 2048  # samples for the label-free measures, whose cost grows with the cube
FRACTIONS = {"select": 0.2, "test": 0.2}  # of each class


class Parts(NamedTuple):
    """Three disjoint parts: labels are drawn from `pool`, the winner is chosen on `select` and measured on `test`."""

    pool: Source
    select: Source
    test: Source


def split_labels(labelled: Source, test: Source | None, seed: int) -> Parts:
    """Split each class: a fifth to choose on, a fifth to measure on (none if `test` is given), the rest to draw from.

    Samples without a label are left out. Raises `UserError` where a part is empty.
    """
    assert labelled.labels is not None
    labelled.labels.check_single()
    ids = labelled.labels.ids
    generator = np.random.default_rng(seed)
    part = np.where(ids >= 0, 0, -1)
    for number in range(len(labelled.labels.classes)):
        members = generator.permutation(np.flatnonzero(ids == number))
        for place, name in enumerate(("select",) if test is not None else FRACTIONS, 1):
            count = min(max(1, round(FRACTIONS[name] * len(members))), max(0, len(members) - place))
            taken = int((part[members] > 0).sum())
            part[members[taken : taken + count]] = place
    chosen = [np.flatnonzero(part == place) for place in range(2 if test is not None else 3)]
    if not all(len(numbers) for numbers in chosen):
        raise UserError(
            f"{labelled.name} has too few labels to choose and to measure on: give at least 3 of a class, or --test"
        )
    pool, select, *rest = (labelled.take(numbers) for numbers in chosen)
    held = rest[0] if test is None else test
    assert pool.labels is not None
    assert held.labels is not None
    pool.labels, held.labels = align(pool.labels, held.labels)
    return Parts(pool, select, held)


def draw(pool: Source, shots: int, draws: int, seed: int) -> list[NDArray[np.int64]]:
    """Return the numbers of the samples of each draw. Raises `UserError` where every draw would be the same."""
    assert pool.labels is not None
    most = int(np.bincount(pool.labels.ids).max())
    if shots >= most:
        raise UserError(
            f"--shots {shots}: {most} labels per class are left to draw from once parts are set aside to choose and to "
            f"measure on, and draws must differ; give --shots {max(1, most // 2)} or fewer, or more labels"
        )
    return [one[shots] for one in nested_draws(pool.labels.ids, [shots], draws, seed)]


@dataclass(frozen=True)
class Accuracy:
    """Scores by the linear probe on frozen features, or by training from scratch, on the same draws of the labels.

    A score has `values`, the accuracy of each draw, and `hits`, for each item the number of draws that got it right.
    """

    parts: Parts
    draws: list[NDArray[np.int64]]
    spec: Any
    fabric: Fabric

    @property
    def classes(self) -> int:
        """The number of classes."""
        assert self.parts.pool.labels is not None
        return len(self.parts.pool.labels.classes)

    def score(self, encoder: nn.Module, names: Sequence[str]) -> dict[str, Any]:
        """Return a score for each part of `names`."""
        parts = ("pool", *names)
        return self._probe({n: extract(encoder, self._part(n), self.spec, self.fabric.device) for n in parts})

    def score_data(self) -> dict[str, Any]:
        """Return the scores of the samples themselves on `select` and `test`."""
        own = baseline(self.spec.kind)
        found = own.features(tuple(self.parts), self.spec, True)
        return self._probe(dict(zip(Parts._fields, found, strict=True)), own.STANDARDISED)

    def _probe(
        self, features: dict[str, tuple[NDArray[np.int64], NDArray[np.float32]]], per_feature: bool = True
    ) -> dict[str, Any]:
        """Return a score for each part but `pool`, on which the probes are fitted, one for each draw."""
        (kept, x), labels = features.pop("pool"), self._ids("pool")
        probes = []
        for drawn in self.draws:
            rows = np.isin(kept, drawn)
            probes.append(fit_probe(x[rows], labels[kept[rows]], self.classes, per_feature=per_feature))
        scores = {}
        for name, (seen, x) in features.items():
            scores[name] = score([np.asarray(probe.predict(x)) == self._ids(name)[seen] for probe in probes])
        return scores

    def _part(self, name: str) -> Source:
        part: Source = getattr(self.parts, name)
        return part

    def _ids(self, name: str) -> NDArray[np.int64]:
        labels = self._part(name).labels
        assert labels is not None
        return labels.ids

    def scratch(self, make: Callable[[], Task], number: int, seed: int) -> dict[str, NDArray[np.bool_]]:
        """Return for one draw which items of `select` and `test` a classifier trained from scratch gets right."""
        classifier = train_on_labels(make, self.parts.pool, self.draws[number], self.spec, self.fabric, seed + number)
        right = {}
        for name in ("select", "test"):
            seen, logits = extract(classifier, self._part(name), self.spec, self.fabric.device)
            right[name] = logits.argmax(1) == self._ids(name)[seen]
        return right


@dataclass(frozen=True)
class LabelFree:
    """Scores by label-free measures of the features of some samples; ranked by RankMe."""

    source: Source
    spec: Any
    fabric: Fabric

    def score(self, encoder: nn.Module, names: Sequence[str]) -> dict[str, Any]:
        """Return `measures` by name."""
        return self._measure(extract(encoder, self.source, self.spec, self.fabric.device)[1])

    def score_data(self) -> dict[str, Any]:
        """Return those of the samples themselves."""
        return self._measure(baseline(self.spec.kind).features((self.source,), self.spec, True)[0][1])

    def _measure(self, x: NDArray[np.float32]) -> dict[str, Any]:
        from selfsup.evaluation import label_free

        measures = ("rankme", "alpha_req", "effective_dimension", "uniformity", "normalised_std")
        found = {name: float(getattr(label_free, name)(torch.from_numpy(x))) for name in measures}
        return {"measures": {name: value if math.isfinite(value) else None for name, value in found.items()}}


def score(right: Sequence[NDArray[np.bool_]]) -> dict[str, Any]:
    """Return the score of several draws, each given as which items (m,) were right."""
    return {"values": [float(one.mean()) for one in right], "hits": np.sum(right, 0).tolist()}


def accuracy(score: dict[str, Any]) -> tuple[float, float]:
    """Return the mean of a score with the half-width of its 95% interval, see `_half`."""
    return float(np.mean(score["values"])), _half(score["values"], np.array(score["hits"]) / len(score["values"]))


def difference(one: dict[str, Any], other: dict[str, Any]) -> tuple[float, float]:
    """Return the mean difference of two scores on the same draws and items, with the half-width of its interval."""
    values = np.array(one["values"]) - np.array(other["values"])
    items = (np.array(one["hits"]) - np.array(other["hits"])) / len(values)
    return float(values.mean()), _half(values.tolist(), items)


def _half(values: Sequence[float], items: NDArray[np.float64]) -> float:
    """Return the half-width: the draws of labels and of items both vary, and their variances add."""
    over_items = 1.96**2 * float(items.var(ddof=1)) / len(items) if len(items) > 1 else math.inf
    return math.sqrt(interval(values).half ** 2 + over_items)
