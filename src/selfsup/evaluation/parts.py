"""Labelled data in two parts: labels are drawn from one, and the other is measured on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from selfsup.errors import UserError
from selfsup.evaluation.probe import stratified_folds
from selfsup.evaluation.problems import check_classes
from selfsup.evaluation.targets import Target, split, whole_files
from selfsup.source import Labels, Source

FOLDS = 5
ENOUGH = 50  # test samples of a class, or in all where labels are no classes


@dataclass(frozen=True)
class Parts:
    """`train` and `test` have a label for each sample, with the same numbering of classes.

    With `folds` (n,) both are the same samples: each fold of them is measured on once, with the others as `train`; -1
    is never measured on.
    """

    target: Target
    train: Source
    test: Source
    data: Source  # as given
    test_data: Source | None  # as given; None: the test part was set aside from the data
    numbers: NDArray[np.int64]  # of the samples of `train` in the data
    unlabelled: NDArray[np.int64]  # of the samples of the data that have no label
    folds: NDArray[np.int64] | None = None

    @property
    def held_out(self) -> bool:
        """Whether the test part was set aside from the data."""
        return self.test_data is None

    @property
    def num_folds(self) -> int:
        """How many times another part is measured on."""
        return 1 if self.folds is None else int(self.folds.max()) + 1

    def labels_to_draw(self) -> Labels:
        """Return the training labels; of several folds those of the one where the largest class has the fewest."""
        labels = labels_of(self.train)
        if self.folds is None:
            return labels
        kept = [labels.ids[self.folds != fold] for fold in range(self.num_folds)]
        return replace(labels, ids=min(kept, key=lambda ids: int(np.bincount(ids).max())))

    def pool(self, unlabelled: int, seed: int) -> Source:
        """Return the samples of `train`, and after them at most so many of those without a label, drawn by the seed."""
        some = np.random.default_rng([seed, 1]).permutation(self.unlabelled)[:unlabelled]
        return self.data.take(np.concatenate([self.numbers, np.sort(some)]))


def make_parts(data: Source, test: Source | None, target: Target, seed: int) -> Parts:
    """Return both parts; without `test` a fifth of each class is set aside. Samples without a label are not tested on.

    Where that fifth would be fewer than 50 samples (of a class, on average), every sample is measured on in turn, by
    stratified 5-fold cross-validation: four test samples say nothing.

    Raises `UserError` for labels that are missing or are no labels of this target.
    """
    numbers, unlabelled = _labelled(data, "--labels")
    folds = None
    if test is None:
        ids = labels_of(data).ids
        few = len(numbers) / FOLDS < ENOUGH * (len(np.unique(ids[numbers])) if target.by_class else 1)
        rest, aside = split(data, seed, target=target)
        if few:
            measured = data.take(numbers)
            one, of = whole_files(measured)
            folds = stratified_folds((ids[numbers] if target.by_class else 0 * numbers)[one], FOLDS, seed)[of]
        else:
            numbers, measured = rest, data.take(aside)
    else:
        measured = test.take(_labelled(test, "--test-labels")[0])
    train = data.take(numbers)
    train.labels, measured.labels = align(labels_of(train), labels_of(measured))
    if target.by_class:
        check_classes(train.labels, measured.labels, train.name)
    for part in (train, measured):
        target.truth(labels_of(part))
    return Parts(target, train, measured, data, test, numbers, unlabelled, folds)


def align(train: Labels, test: Labels) -> tuple[Labels, Labels]:
    """Number the classes of both parts alike, by name."""
    names = tuple(dict.fromkeys((*train.classes, *test.classes)))
    number = {name: i for i, name in enumerate(names)}
    place = np.array([number[name] for name in test.classes] + [-1])
    return replace(train, classes=names), replace(test, ids=place[test.ids], classes=names)


def labels_of(source: Source) -> Labels:
    """Return the labels of a source that has them."""
    assert source.labels is not None
    return source.labels


def _labelled(source: Source, option: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the numbers of the samples that have a label, and of those that have none."""
    if source.labels is None or not (source.labels.ids >= 0).any():
        raise UserError(
            f"{source.name} has no labels: give {option} folders, a CSV file (path,label) or an .npz file with y"
        )
    return np.flatnonzero(source.labels.ids >= 0), np.flatnonzero(source.labels.ids < 0)
