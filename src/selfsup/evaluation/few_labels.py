"""Scores against labels per class: frozen features and trained classifiers, all on the same draws of the labels."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from scipy.special import softmax
from torch import nn

from selfsup.base.processes import side_by_side
from selfsup.base.progress import counting
from selfsup.base.turns import own_turn
from selfsup.evaluation.drawn import Drawn, Poolings
from selfsup.evaluation.draws import interval
from selfsup.evaluation.evaluators import EVALUATORS
from selfsup.evaluation.features import extract
from selfsup.evaluation.parts import labels_of
from selfsup.evaluation.score import Score
from selfsup.evaluation.targets import TARGETS, Draws, Target
from selfsup.source import Labels, Source
from selfsup.task import Task
from selfsup.train.fit import fit
from selfsup.train.plan import Plan

R = TypeVar("R")
Values = dict[tuple[str, str, int | None], list[dict[str, float]]]
"""The metrics of each draw, by row, protocol and shots."""
LR = {"trained": 2e-3, "self-trained": 2e-3, "finetune": 5e-4}  # by protocol: a pretrained encoder is changed less
CONFIDENT = 0.95  # probability from which on a prediction becomes a pseudo-label
TRAINED = {
    "trained": "AdamW 0.002, batch up to 32, 30 passes, 200 to 400 steps, the views of the run; "
    "s4l: 400 steps of 64 samples and 64 labelled ones, all upright, with the pretext of the run "
    "or, where that is impossible, rotation",
    "self-trained": "as trained, then once more from fresh weights on the labels and on the pseudo-labels of all "
    f"training samples, labelled or not, that it predicts with at least {CONFIDENT:.0%} (at least a tenth of them); "
    "both kinds are drawn equally often",
    "finetune": "as trained, from the pretrained encoder, AdamW 0.0005",
}
BATCH, STEPS = 32, (200, 400)  # as accurate as 64 and up to 600 steps at a rate of 0.001, which cost twice as much


class Classifier(NamedTuple):
    """A row of the evaluation that is trained whole, encoder and head, on the labels of each draw."""

    name: str
    protocol: str  # a key of `LR`
    make: Callable[[], Task]  # a task with an `encoder` and a `head`
    taught: str | None = None  # name of the row, if any, of the classifier that it then teaches; see `self_train`


def read_features(
    name: str,
    protocols: Sequence[str],
    train: Poolings,
    test: Poolings,
    labels: Labels,
    truth: NDArray[Any],
    draws: Draws,
    target: Target,
    per_feature: bool = True,
) -> Values:
    """Return the metrics of frozen features by the evaluators of protocols: trained with `labels`, tested by `truth`.

    They see the drawn labels alone. `per_feature`: see `Drawn`.
    """
    evaluators = {protocol: EVALUATORS[protocol] for protocol in protocols}
    prepared = {key: one.prepare(train, test) for key, one in evaluators.items() if one.prepare is not None}
    y, num_classes = target.truth(labels), len(labels.classes) if target.classes else None

    def read(rows: NDArray[np.int64], number: int) -> dict[str, dict[str, float]]:
        drawn = Drawn(train, rows, y[rows], num_classes, per_feature)
        found = {}
        for protocol, evaluator in evaluators.items():
            predicted = evaluator.predict(replace(drawn, prepared=prepared.get(protocol)), test)
            found[protocol] = {metric: measure(truth, predicted) for metric, measure in target.metrics.items()}
        return found

    found = _on_draws(read, draws, torch.device("cpu"))
    return _by_row(dict.fromkeys(protocols, name), found)


def train_on_draws(
    row: Classifier,
    source: Source,
    test: Source,
    draws: Draws,
    spec: Any,
    fabric: Fabric,
    seed: int,
    quiet: bool,
) -> Values:
    """Return the metrics of classifiers that `train_on_labels` trained, one per draw, and of those that they taught."""
    ids, metrics = labels_of(test).ids, TARGETS["classes"].metrics
    names = {row.protocol: row.name} | ({} if row.taught is None else {"self-trained": row.taught})

    def score(rows: NDArray[np.int64], number: int) -> dict[str, dict[str, float]]:
        found = {}
        classifier: nn.Module | None = None
        for protocol in names:
            given = row.make, source, rows, spec, fabric, seed + number
            if classifier is None:
                classifier = train_on_labels(*given, lr=LR[protocol])
            else:
                classifier = self_train(classifier, *given, lr=LR[protocol])
            numbers, logits = extract(classifier, test, spec, fabric.device)
            found[protocol] = {metric: measure(ids[numbers], logits.argmax(1)) for metric, measure in metrics.items()}
        return found

    what = " and ".join(names.values())
    with counting(f"training {what}", sum(len(draws) if shots else 1 for shots in draws[0]), quiet) as advance:
        found = _on_draws(score, draws, fabric.device, advance)
    return _by_row(names, found)


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
    with own_turn():
        torch.manual_seed(seed)
        task: Any = make()
    few = _only(source, drawn) if task.uses_unlabelled else source.take(drawn)
    steps, batch = (400, min(len(few), 64)) if task.uses_unlabelled else training_steps(len(few))
    fit(task, few, task.views(spec), Plan(steps=steps, batch_size=batch, lr=lr, seed=seed), fabric, quiet=True)
    return nn.Sequential(task.encoder, task.head)


def training_steps(labels: int) -> tuple[int, int]:
    """Return how many steps `train_on_labels` trains on so many labelled samples, and their batch."""
    batch = min(labels, BATCH)
    return int(np.clip(30 * labels // batch, *STEPS)), batch


def self_train(
    teacher: nn.Module,
    make: Callable[[], Task],
    source: Source,
    drawn: NDArray[np.int64],
    spec: Any,
    fabric: Fabric,
    seed: int,
    lr: float = LR["self-trained"],
) -> nn.Module:
    """Return a classifier taught by another one's predictions (pseudo-labels: Lee, 2013; Xie et al., 2020).

    `teacher` is what `train_on_labels` made of the drawn samples. The samples of `source` that it predicts with a
    probability of at least 0.95, but at least the surest tenth, get its prediction as their label; a fresh classifier
    is trained on these and on the drawn ones, repeated until they are as many.
    """
    numbers, logits = extract(teacher, source, spec, fabric.device)
    probability = softmax(logits, 1)
    sure = probability.max(1)
    sure[np.isin(numbers, drawn)] = -1  # their labels are known
    chosen = sure >= min(CONFIDENT, float(np.quantile(sure[sure >= 0], 0.9))) if (sure >= 0).any() else sure > 1
    if not chosen.any():
        return teacher
    labels = labels_of(source)
    ids = labels.ids.copy()
    ids[numbers[chosen]] = probability[chosen].argmax(1)
    taught = copy.copy(source)
    taught.labels = Labels(ids, labels.classes)
    both = np.concatenate([np.resize(drawn, max(len(drawn), int(chosen.sum()))), numbers[chosen]])
    return train_on_labels(make, taught, both, spec, fabric, seed, lr)


def _only(source: Source, drawn: NDArray[np.int64]) -> Source:
    """Return the whole source with the labels of the drawn samples alone."""
    labels, few = labels_of(source), copy.copy(source)
    ids = np.full(len(source), -1)
    ids[drawn] = labels.ids[drawn]
    few.labels = Labels(ids, labels.classes)
    return few


def _on_draws(
    work: Callable[[NDArray[np.int64], int], R],
    draws: Draws,
    device: torch.device,
    done: Callable[[int], None] = lambda _: None,
) -> dict[int | None, list[R]]:
    """Return what `work` gives for the rows and the number of each draw, by shots. There is one way to take `all`."""
    jobs = [(shots, number) for shots in draws[0] if shots is not None for number in range(len(draws))]
    values = side_by_side(lambda job: work(draws[job[1]][job[0]], job[1]), jobs, device, done)
    found: dict[int | None, list[R]] = {shots: [] for shots in draws[0]}
    for (shots, _), value in zip(jobs, values, strict=True):
        found[shots].append(value)
    if None in found:  # with all threads
        found[None].append(work(draws[0][None], 0))
        done(1)
    return found


def _by_row(names: Mapping[str, str], found: Mapping[int | None, list[dict[str, dict[str, float]]]]) -> Values:
    """Return what was found with each number of shots, by row; `names` are those of the rows, by protocol."""
    return {
        (name, protocol, shots): [value[protocol] for value in values]
        for protocol, name in names.items()
        for shots, values in found.items()
    }


def make_score(name: str, protocol: str, shots: int | None, values: Sequence[Mapping[str, float]]) -> Score:
    """Return the score of a row from its metrics, one mapping per draw, the headline first."""
    metrics = {metric: tuple(value[metric] for value in values) for metric in values[0]}
    headline, *others = metrics
    mean, half, _ = interval(metrics[headline])
    also = {metric: interval(metrics[metric])[:2] for metric in others}
    return Score(name, protocol, shots, mean, half, metrics[headline], also)
