"""Accuracy against labels per class: each representation read by each protocol, on the same draws of the labels."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import nn

from selfsup.data import Labels, Source
from selfsup.evaluation.draws import interval, nested_draws
from selfsup.evaluation.features import extract
from selfsup.evaluation.knn import fit_knn
from selfsup.evaluation.probe import fit_probe
from selfsup.evaluation.result import Score
from selfsup.progress import counting
from selfsup.task import Task
from selfsup.train.fit import Plan, fit

Draws = Sequence[Mapping[int | None, NDArray[np.int64]]]
Reader = Callable[..., Any]
READERS: dict[str, Reader] = {"linear": fit_probe, "knn": fit_knn}


def read_features(
    name: str,
    train: NDArray[np.float32],
    test: NDArray[np.float32],
    labels: NDArray[np.int64],
    truth: NDArray[np.int64],
    classes: int,
    draws: Draws,
    protocols: Sequence[str],
) -> list[Score]:
    """Return the scores of frozen features: `train` (n, d) with `labels` (n,), `test` (m, d) with `truth` (m,).

    A reader sees the drawn labels alone, and chooses its hyper-parameter on them.
    """
    scores = []
    for protocol in protocols:
        for shots in draws[0]:
            values = []
            for draw in draws if shots is not None else draws[:1]:  # there is only one way to take them all
                chosen = draw[shots]
                reader = READERS[protocol](train[chosen], labels[chosen], classes)
                values.append(float((reader.predict(test) == truth).mean()))
            scores.append(_score(name, protocol, shots, values))
    return scores


def train_on_draws(
    name: str,
    make: Callable[[], Task],
    source: Source,
    test: Source,
    draws: Draws,
    spec: Any,
    fabric: Fabric,
    seed: int,
    quiet: bool,
) -> list[Score]:
    """Return the scores of classifiers that `train_on_labels` trained, one a draw."""
    assert source.labels is not None
    assert test.labels is not None
    scores = []
    with counting(f"training {name}", sum(len(draws) if shots else 1 for shots in draws[0]), quiet) as advance:
        for shots in draws[0]:
            values = []
            for number, draw in enumerate(draws if shots is not None else draws[:1]):
                classifier = train_on_labels(make, source, draw[shots], spec, fabric, seed + number)
                numbers, logits = extract(classifier, test, spec, fabric.device)
                values.append(float((logits.argmax(1) == test.labels.ids[numbers]).mean()))
                advance(1)
            scores.append(_score(name, "trained", shots, values))
    return scores


def train_on_labels(
    make: Callable[[], Task], source: Source, drawn: NDArray[np.int64], spec: Any, fabric: Fabric, seed: int
) -> nn.Module:
    """Return a classifier, the `encoder` and `head` of a fresh task, trained on the labels of the drawn samples alone.

    A task that uses unlabelled samples gets the rest of `source` without labels: 400 steps of 64 samples, learning
    rate 0.002. Any other sees the labelled samples alone: batches of up to 64, 30 passes but at least 200 and at most
    600 steps, learning rate 0.001. AdamW.
    """
    torch.manual_seed(seed)
    task: Any = make()
    few = _only(source, drawn) if task.uses_unlabelled else source.take(drawn)
    batch = min(len(few), 64)
    steps, lr = int(np.clip(30 * len(few) // batch, 200, 600)), 1e-3
    if task.uses_unlabelled:
        steps, lr = 400, 2e-3
    fit(task, few, task.views(spec), Plan(steps=steps, batch_size=batch, lr=lr, seed=seed), fabric, quiet=True)
    return nn.Sequential(task.encoder, task.head)


def _only(source: Source, drawn: NDArray[np.int64]) -> Source:
    """Return the whole source with the labels of the drawn samples alone."""
    assert source.labels is not None
    ids = np.full(len(source), -1)
    ids[drawn] = source.labels.ids[drawn]
    few = copy.copy(source)
    few.labels = Labels(ids, source.labels.classes)
    return few


def split(source: Source, seed: int, share: float = 0.2) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the numbers of the labelled samples in two parts, the second with `share` of each class, at least one."""
    assert source.labels is not None
    ids = source.labels.ids
    generator = np.random.default_rng(seed)
    test = np.zeros(len(ids), bool)
    for number in range(len(source.labels.classes)):
        members = generator.permutation(np.flatnonzero(ids == number))
        test[members[: max(1, round(share * len(members)))]] = len(members) > 1
    labelled = ids >= 0
    return np.flatnonzero(labelled & ~test), np.flatnonzero(labelled & test)


def draw_labels(source: Source, shots: Sequence[int | None], draws: int, seed: int) -> Draws:
    """Return `draws` nested draws of labels, as sample numbers by shots."""
    assert source.labels is not None
    drawn: Draws = nested_draws(source.labels.ids, shots, draws, seed)
    return drawn


def align(train: Labels, test: Labels) -> tuple[Labels, Labels]:
    """Number the classes of both parts alike, by name."""
    names = (*train.classes, *(name for name in test.classes if name not in train.classes))
    place = np.array([names.index(name) for name in test.classes] + [-1])
    return Labels(train.ids, names), replace(test, ids=place[test.ids], classes=names)


def _score(name: str, protocol: str, shots: int | None, values: list[float]) -> Score:
    mean, half, _ = interval(values)
    return Score(name, protocol, shots, mean, half, tuple(values))
