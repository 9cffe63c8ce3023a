"""How a candidate is scored at a stage: few-label accuracy where there are labels, else label-free measures."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import nn

from selfsup.base.processes import side_by_side
from selfsup.errors import UserError
from selfsup.evaluation.baselines import baseline
from selfsup.evaluation.drawn import Drawn, Poolings
from selfsup.evaluation.draws import interval, nested_draws
from selfsup.evaluation.duplicates import near_copies, same_bytes
from selfsup.evaluation.evaluators import EVALUATORS
from selfsup.evaluation.features import extract
from selfsup.evaluation.few_labels import train_on_labels
from selfsup.evaluation.frozen import read_poolings
from selfsup.evaluation.measuring import UNLABELLED
from selfsup.evaluation.parts import ENOUGH, FOLDS, align, labels_of
from selfsup.evaluation.probe import stratified_folds
from selfsup.evaluation.problems import check_classes, contents
from selfsup.evaluation.targets import split, whole_files
from selfsup.source import Source
from selfsup.task import Task

READER = "propagate"  # the evaluator that ranks: the headline of `evaluate`
ITEMS = 2048  # samples for the label-free measures, whose cost grows with the cube
PAIRED = 3  # draws from which on the spread of their differences tells something
NONE = np.empty(0, np.int64)
Ids = NDArray[np.int64]
Features = Sequence[tuple[Ids, Poolings]]
"""Of the data, and after them of test data of their own: the numbers of the samples that can be read, and features."""


class Fold(NamedTuple):
    """Disjoint samples of the data, by number: labels are drawn from `pool`, the winner is chosen on `select`."""

    pool: Ids
    select: Ids
    test: Ids  # empty where all labelled samples are in `select` in turn, or the test data are others


@dataclass(frozen=True)
class Parts:
    """How the labelled samples of `data` are used; samples without a label are in the pool of every fold."""

    data: Source
    folds: tuple[Fold, ...]
    unlabelled: Ids
    test: Source | None  # test data of their own

    @property
    def counts(self) -> dict[str, int]:
        """The number of samples of each part."""
        first, chosen_on = self.folds[0], sum(len(fold.select) for fold in self.folds)
        test = len(first.test) if self.test is None else len(self.test)
        return {"pool": len(first.pool), "select": chosen_on, "test": test, "unlabelled": len(self.unlabelled)}


class Draw(NamedTuple):
    """The numbers of the samples whose labels are drawn, and their fold."""

    fold: int
    numbers: Ids


def split_labels(labelled: Source, test: Source | None, seed: int) -> Parts:
    """Set aside a fifth of each class to choose on and, unless there are test data, a fifth to measure on.

    Where a fifth is fewer than 50 samples of a class, on average, every labelled sample is chosen by and measured on in
    turn, in five folds: a few samples say nothing. At most 30,000 samples without a label are used, over all folds.

    Raises `UserError` for labels of one class, several of a sample, and where no class has two.
    """
    data, labels = copy.copy(labelled), labels_of(labelled)
    labels.check_single()
    known = np.flatnonzero(labels.ids >= 0)
    ids = labels.ids[known]
    if len(known) / FOLDS < ENOUGH * len(np.unique(ids)):
        one, of = whole_files(labelled.take(known))
        held = stratified_folds(ids[one], FOLDS, seed)[of]
        folds = tuple(Fold(known[held != fold], known[held == fold], NONE) for fold in range(held.max() + 1))
    else:
        rest, aside = split(labelled, seed) if test is None else (known, NONE)
        pool, select = split(labelled.take(rest), seed, len(known) / FOLDS / len(rest))
        folds = (Fold(rest[pool], rest[select], aside),)
    if not folds:
        raise UserError(
            f"no class of {labelled.name} has two labels, so none can be set aside to choose by: give more labels"
        )
    if test is not None:
        test = copy.copy(test)
        data.labels, test.labels = align(labels, labels_of(test))
    among = labels_of(data.take(known))
    check_classes(among, among if test is None else labels_of(test), labelled.name)
    some = np.random.default_rng([seed, 1]).permutation(np.flatnonzero(labels.ids < 0))[: UNLABELLED // len(folds)]
    return Parts(data, folds, np.sort(some), test)


def draw(parts: Parts, shots: int, draws: int, seed: int) -> tuple[list[Draw], int]:
    """Return the draws, at least so many and as many of each fold, and the labels per class that were drawn.

    Draws must differ: where a class has no more labels than `shots` to draw from, half of what the largest has.
    """
    ids = labels_of(parts.data).ids
    pools = [np.where(np.isin(np.arange(len(ids)), fold.pool), ids, -1) for fold in parts.folds]
    most = min(int(np.bincount(one[one >= 0]).max()) for one in pools)
    shots = shots if shots < most else max(1, most // 2)
    each = -(-draws // len(pools))
    found = [nested_draws(one, [shots], each, seed + number) for number, one in enumerate(pools)]
    return [Draw(fold, found[fold][number][shots]) for number in range(each) for fold in range(len(pools))], shots


@dataclass(frozen=True)
class Accuracy:
    """Scores by `READER` on frozen features, or by training from scratch, on the same draws of the labels.

    A score has for `select`, and for `test` where that is another part, what `score` returns.
    """

    parts: Parts
    draws: list[Draw]
    spec: Any
    fabric: Fabric

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(labels_of(self.parts.data).classes)

    @cached_property
    def numbers(self) -> Ids:
        """The samples of the data that are used."""
        return np.sort(np.concatenate([*self.parts.folds[0], self.parts.unlabelled]))

    def features(self, encoder: nn.Module, last: bool = True) -> Features:
        """Return the features of all parts; before the `last` stage not those of test data of their own."""
        return read_poolings(encoder, self._sources(last), self.spec, self.fabric.device, True)

    def data_features(self) -> Features:
        """Return the samples themselves as features."""
        found = baseline(self.spec.kind).features(self._sources(True), self.spec, True)
        return [(numbers, {"own": x}) for numbers, x in found]

    def read(self, features: Features, per_feature: bool = True) -> dict[str, Any]:
        """Return the score of features: one graph for each fold, without the samples that are measured on."""
        (kept, x), *rest = features
        place, ids, evaluator = self._rows(kept), labels_of(self.parts.data).ids, EVALUATORS[READER]
        prepare = evaluator.prepare
        assert prepare is not None

        def of(numbers: Ids) -> tuple[Ids, Poolings]:
            numbers = numbers[place[numbers] >= 0]
            return numbers, {name: part[place[numbers]] for name, part in x.items()}

        pools = [of(np.concatenate([fold.pool, self.parts.unlabelled])) for fold in self.parts.folds]
        graph = prepare(pools[0][1], {}) if len(pools) == 1 else None  # with all threads, for all draws

        def right(draws: Sequence[Draw]) -> list[dict[str, str]]:
            fold = draws[0].fold
            numbers, pool = pools[fold]
            prepared = prepare(pool, {}) if graph is None else graph
            measured = {name: of(part) for name, part in self._measured(fold).items()}
            measured |= {"test": rest[0]} if rest else {}
            both = {name: np.concatenate([part[name] for _, part in measured.values()]) for name in pool}
            found = []
            for one in draws:
                rows = np.flatnonzero(np.isin(numbers, one.numbers))
                drawn = Drawn(pool, rows, ids[numbers[rows]], self.classes, per_feature, prepared)
                parts = np.split(evaluator.predict(drawn, both), np.cumsum([len(m[0]) for m in measured.values()]))
                found.append({name: self._marks(name, measured[name][0], parts.pop(0)) for name in measured})
            return found

        count = len(self.draws) if graph else len(pools)
        found = side_by_side(right, [self.draws[number::count] for number in range(count)], torch.device("cpu"))
        return {name: score([one[name] for some in zip(*found, strict=True) for one in some]) for name in found[0][0]}

    def scratch(self, make: Callable[[], Task], number: int, seed: int) -> dict[str, str]:
        """Return for one draw which samples a classifier trained from scratch gets right; see `score`."""
        one, data = self.draws[number], self.parts.data
        classifier = train_on_labels(make, data, one.numbers, self.spec, self.fabric, seed + number)
        marks = {}
        measured = {name: (part, data.take(part)) for name, part in self._measured(one.fold).items()}
        measured |= {} if self.parts.test is None else {"test": (np.arange(len(self.parts.test)), self.parts.test)}
        for name, (numbers, source) in measured.items():
            kept, logits = extract(classifier, source, self.spec, self.fabric.device)
            marks[name] = self._marks(name, numbers[kept], logits.argmax(1))
        return marks

    def copies(self, raw: Features) -> int:
        """Return how many samples that are measured on are also in the other parts, as they are or saved again.

        `raw`: `data_features()`.
        """
        (kept, x), *rest = raw
        parts, own, place, found = self.parts, baseline(self.spec.kind), self._rows(kept), 0
        in_turn = parts.test is None and not len(parts.folds[0].test)
        for pool, select, test in parts.folds if in_turn else parts.folds[:1]:
            train, numbers = (pool, select) if in_turn else (np.concatenate([pool, select]), test)
            tested = parts.data.take(numbers) if parts.test is None else parts.test
            same = same_bytes(contents(parts.data.take(train)), contents(tested))[:, 0].tolist()
            rows = rest[0][0] if rest else np.flatnonzero(place[numbers] >= 0)
            features = rest[0][1]["own"] if rest else x["own"][place[numbers[rows]]]
            images = own.images(x["own"][place[train][place[train] >= 0]], features, self.spec)
            near = [] if images is None else rows[near_copies(*images)[:, 0]].tolist()
            found += len({*same, *near})
        return found

    @property
    def scratch_samples(self) -> float:
        """How many samples `scratch` scores, as a fraction of those of `features`."""
        measured = sum(map(len, self._measured(0).values())) + len(self.parts.test or ())
        return measured / sum(map(len, self._sources(True)))

    def _rows(self, kept: Ids) -> Ids:
        """Return the row of each sample of the data among the features of those `kept` of `numbers`; -1 for others."""
        rows = np.full(len(self.parts.data), -1)
        rows[self.numbers[kept]] = np.arange(len(kept))
        return rows

    def _sources(self, last: bool) -> list[Source]:
        own = [self.parts.test] if last and self.parts.test is not None else []
        return [self.parts.data.take(self.numbers), *own]

    def _measured(self, fold: int) -> dict[str, Ids]:
        """Return the samples of the data that are measured on."""
        _, select, test = self.parts.folds[fold]
        return {"select": select} | ({"test": test} if len(test) else {})

    def _marks(self, name: str, numbers: Ids, predicted: Ids) -> str:
        own = name == "test" and self.parts.test is not None
        ids = labels_of(self.parts.test if own and self.parts.test is not None else self.parts.data).ids
        items = np.arange(len(ids)) if own else np.sort(np.concatenate([getattr(f, name) for f in self.parts.folds]))
        return marks(predicted == ids[numbers], np.searchsorted(items, numbers), len(items))


@dataclass(frozen=True)
class LabelFree:
    """Scores by label-free measures of the features of some samples; ranked by RankMe."""

    source: Source
    spec: Any
    fabric: Fabric

    def features(self, encoder: nn.Module, last: bool = True) -> Features:
        """Return the features of the samples."""
        numbers, x = extract(encoder, self.source, self.spec, self.fabric.device)
        return [(numbers, {"own": x})]

    def data_features(self) -> Features:
        """Return the samples themselves as features."""
        ((numbers, x),) = baseline(self.spec.kind).features((self.source,), self.spec, True)
        return [(numbers, {"own": x})]

    def read(self, features: Features, per_feature: bool = True) -> dict[str, Any]:
        """Return `measures` by name."""
        from selfsup.evaluation import label_free

        x = torch.from_numpy(features[0][1]["own"])
        measures = ("rankme", "alpha_req", "effective_dimension", "uniformity", "normalised_std")
        found = {name: float(getattr(label_free, name)(x)) for name in measures}
        return {"measures": {name: value if math.isfinite(value) else None for name, value in found.items()}}


def marks(right: NDArray[np.bool_], places: Ids, count: int) -> str:
    """Return one mark for each of `count` samples: 1 for right, 0 for wrong, - for one that was not measured on."""
    codes = np.full(count, ord("-"), np.uint8)
    codes[places] = np.where(right, ord("1"), ord("0"))
    return codes.tobytes().decode()


def score(right: Sequence[str]) -> dict[str, Any]:
    """Return the score of several draws, each given by its `marks`: these, and the accuracies as `values`."""
    values = [one.count("1") / max(1, len(one) - one.count("-")) for one in right]
    return {"values": values, "right": list(right)}


def accuracy(score: dict[str, Any]) -> tuple[float, float]:
    """Return the mean of a score with the half-width of its 95% interval; nan for a single draw."""
    return _mean(_grid(score["right"]))


def difference(one: dict[str, Any], other: dict[str, Any]) -> tuple[float, float]:
    """Return the mean difference of two scores on the draws that both have, with the half-width of its interval.

    Of one or two draws, the luck of the draw is taken to be that of two independent scores like the one with more.
    """
    draws = min(len(one["right"]), len(other["right"]))
    more = max(one, other, key=lambda score: len(score["right"]))["values"]
    luck = (2 * len(more)) ** 0.5 * interval(more).half if draws < PAIRED else None
    return _mean(_grid(one["right"][:draws]) - _grid(other["right"][:draws]), luck)


def _grid(right: Sequence[str]) -> NDArray[np.float64]:
    """Return 1, 0 or nan (not measured) for each draw and sample."""
    codes = np.array([np.frombuffer(row.encode(), np.uint8) for row in right])
    return np.where(codes == ord("-"), np.nan, codes == ord("1"))


def _mean(grid: NDArray[np.float64], luck: float | None = None) -> tuple[float, float]:
    """Return the mean over draws (rows) and samples, and the half-width of its interval.

    Where all draws are measured on the same samples, both vary, and their variances add. Where each fold has samples of
    its own, the spread over folds has both. `luck`: the half-width for one draw, where it is known from elsewhere.
    """
    known = ~np.isnan(grid)
    grid, known = grid[known.any(1)], known[known.any(1)]
    mean, half, draws = interval(np.nanmean(grid, 1).tolist())
    half = half if luck is None else luck / draws**0.5
    if (known == known[0]).all():
        items = grid[:, known[0]].mean(0)
        half = math.hypot(half, 1.96 * items.std(ddof=1) / len(items) ** 0.5 if len(items) > 1 else math.inf)
    return mean, half
