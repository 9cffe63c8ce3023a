"""Accuracy against labels per class: each representation read by each protocol, on the same draws of the labels."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import nn

from selfsup.base.processes import side_by_side
from selfsup.base.progress import counting
from selfsup.evaluation.attentive import fit_attentive
from selfsup.evaluation.draws import interval
from selfsup.evaluation.features import extract
from selfsup.evaluation.frozen import Poolings
from selfsup.evaluation.knn import fit_knn
from selfsup.evaluation.probe import fit_probe
from selfsup.evaluation.result import Score
from selfsup.evaluation.ridge import fit_ridge
from selfsup.evaluation.targets import TARGETS, Draws, Target
from selfsup.source import Labels, Source
from selfsup.task import Task
from selfsup.train.fit import fit
from selfsup.train.plan import Plan

LR = {"trained": 2e-3, "finetune": 5e-4}  # a pretrained encoder is changed less
BATCH, STEPS = 32, (200, 400)  # as accurate as 64 and up to 600 steps at a rate of 0.001, which cost twice as much
FROZEN = ("linear", "knn", "attentive")  # protocols that leave the encoder as it is


def read_features(
    name: str,
    train: Poolings,
    test: Poolings,
    labels: NDArray[Any],
    truth: NDArray[Any],
    classes: int,
    draws: Draws,
    protocols: Sequence[str],
    target: Target = TARGETS["classes"],
    alike: bool = True,
) -> list[Score]:
    """Return the scores of frozen features: those of `train` (n, d) with `labels` (n,), of `test` (m, d) with `truth`.

    A reader sees the drawn labels alone, and chooses its hyper-parameter and the pooling on them. `alike`: whether the
    linear one puts all features on one scale.
    """
    scores = []
    for protocol in protocols:

        def read(rows: NDArray[np.int64], number: int, protocol: str = protocol) -> dict[str, float]:
            predicted = _read(protocol, train, test, rows, labels[rows], classes, alike)
            return {metric: measure(truth, predicted) for metric, measure in target.metrics.items()}

        found = _on_draws(read, draws, torch.device("cpu"))
        scores += [_score(name, protocol, shots, values) for shots, values in found.items()]
    return scores


def _on_draws(
    work: Callable[[NDArray[np.int64], int], dict[str, float]],
    draws: Draws,
    device: torch.device,
    done: Callable[[int], None] = lambda _: None,
) -> dict[int | None, list[dict[str, float]]]:
    """Return what `work` gives for the rows and the number of each draw, by shots. There is one way to take `all`."""
    trials = [(shots, number) for shots in draws[0] if shots is not None for number in range(len(draws))]
    values = side_by_side(lambda trial: work(draws[trial[1]][trial[0]], trial[1]), trials, device, done)
    found: dict[int | None, list[dict[str, float]]] = {shots: [] for shots in draws[0]}
    for (shots, _), value in zip(trials, values, strict=True):
        found[shots].append(value)
    if None in found:  # with all threads
        found[None].append(work(draws[0][None], 0))
        done(1)
    return found


def _read(
    protocol: str,
    train: Poolings,
    test: Poolings,
    rows: NDArray[np.int64],
    y: NDArray[Any],
    classes: int,
    alike: bool,
) -> NDArray[Any]:
    if protocol == "knn":
        return fit_knn(train["own"][rows], y, classes).predict(test["own"])
    if protocol == "attentive":
        return fit_attentive(train["tokens"][rows], y, classes).predict(test["tokens"])
    pooled = [pooling for pooling in train if pooling != "tokens"]
    numbers = y.ndim > 1 or y.dtype.kind == "f"
    fitted: dict[str, Any] = {
        pooling: fit_ridge(train[pooling][rows], y)
        if numbers
        else fit_probe(train[pooling][rows], y, classes, alike=alike)
        for pooling in pooled
    }
    best = pooled[0]
    for pooling in pooled[1:]:  # where nothing was held out the losses are nan, and the encoder's own pooling stays
        best = pooling if fitted[pooling].loss < fitted[best].loss else best
    predicted: NDArray[Any] = fitted[best].predict(test[best])
    return predicted


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
    protocol: str = "trained",
) -> list[Score]:
    """Return the scores of classifiers that `train_on_labels` trained, one a draw."""
    assert source.labels is not None
    assert test.labels is not None
    labels, metrics = test.labels, TARGETS["classes"].metrics

    def train(rows: NDArray[np.int64], number: int) -> dict[str, float]:
        classifier = train_on_labels(make, source, rows, spec, fabric, seed + number, lr=LR[protocol])
        numbers, logits = extract(classifier, test, spec, fabric.device)
        wanted, predicted = labels.ids[numbers], logits.argmax(1)
        return {metric: measure(wanted, predicted) for metric, measure in metrics.items()}

    with counting(f"training {name}", sum(len(draws) if shots else 1 for shots in draws[0]), quiet) as advance:
        found = _on_draws(train, draws, fabric.device, advance)
    return [_score(name, protocol, shots, values) for shots, values in found.items()]


def train_on_labels(
    make: Callable[[], Task],
    source: Source,
    drawn: NDArray[np.int64],
    spec: Any,
    fabric: Fabric,
    seed: int,
    lr: float = LR["trained"],
) -> nn.Module:
    """Return a classifier, the `encoder` and `head` of a fresh task, trained on the labels of the drawn samples alone.

    A task that uses unlabelled samples gets the rest of `source` without labels: 400 steps of 64 samples. Any other
    sees the labelled samples alone: batches of up to 32, 30 passes but at least 200 and at most 400 steps. AdamW,
    learning rate 0.002, or 0.0005 for `finetune`, whose task holds a pretrained encoder.
    """
    torch.manual_seed(seed)
    task: Any = make()
    few = _only(source, drawn) if task.uses_unlabelled else source.take(drawn)
    batch = min(len(few), 64 if task.uses_unlabelled else BATCH)
    steps = 400 if task.uses_unlabelled else int(np.clip(30 * len(few) // batch, *STEPS))
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


def align(train: Labels, test: Labels) -> tuple[Labels, Labels]:
    """Number the classes of both parts alike, by name."""
    names = tuple(dict.fromkeys((*train.classes, *test.classes)))
    number = {name: i for i, name in enumerate(names)}
    place = np.array([number[name] for name in test.classes] + [-1])
    return Labels(train.ids, names), replace(test, ids=place[test.ids], classes=names)


def _score(name: str, protocol: str, shots: int | None, values: list[dict[str, float]]) -> Score:
    metrics = {metric: tuple(value[metric] for value in values) for metric in values[0]}
    headline, *others = metrics
    mean, half, _ = interval(metrics[headline])
    also = {metric: interval(metrics[metric])[:2] for metric in others}
    return Score(name, protocol, shots, mean, half, metrics[headline], also)
