"""The targets: a class per sample, a number, several labels, a class per frame or place, states; drawn and scored."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfsup.errors import UserError
from selfsup.evaluation.draws import nested_draws, nested_subsets
from selfsup.evaluation.metrics import accuracy, average_precision, balanced_accuracy, macro_f1, mean_iou, r2
from selfsup.source import Labels, Source

Draws = Sequence[Mapping[int | None, NDArray[np.int64]]]


@dataclass(frozen=True)
class Target:
    """A kind of label. `metrics` take (truth, predicted); the first is the headline."""

    name: str
    classes: bool  # whether labels are classes
    by_class: bool  # whether shots count labels of each class; else they count samples, or frames
    unit: str  # what shots count, in words
    shots: tuple[int, ...]  # the default ones, as far as there are enough labels
    metrics: Mapping[str, Callable[[Any, Any], float]]
    truth: Callable[[Labels], NDArray[Any]]  # what has to be predicted; every sample has a label
    chance: Callable[[NDArray[Any]], float]  # what a guess that ignores the input reaches
    guess: str  # which guess that is
    whole: bool = True  # whether all labels are one of the default shots


def _numbers(labels: Labels) -> NDArray[np.float64]:
    """Return numbers (n,). Raises `UserError` for a label that is not a finite number."""
    return np.array([_number(name) for name in labels.classes])[labels.ids]


def _one(labels: Labels) -> NDArray[np.int64]:
    """Return the numbers of the classes (n,). Raises `UserError` for several labels of a sample."""
    labels.check_single()
    return labels.ids


def _several(labels: Labels) -> NDArray[np.int64]:
    """Return (n, labels) of 0 and 1, of labels written `a|b|c`; whatever stands between two bars is a label."""
    parts = [{part.strip() for part in name.split("|")} - {""} for name in labels.classes]
    names = sorted(set().union(*parts))
    return np.array([[int(name in own) for name in names] for own in parts], dtype=np.int64)[labels.ids]


_SAMPLES = ("labelled samples", (10, 20, 50, 100, 200, 500, 1000))
_CLASSES: Any = (
    {"accuracy": accuracy, "balanced accuracy": balanced_accuracy, "macro F1": macro_f1},
    _one, lambda ids: float(np.bincount(ids).max() / len(ids)), "always the largest class",
)  # fmt: skip
TARGETS = {
    "classes": Target("classes", True, True, "labels per class", (1, 2, 5, 10, 20, 50, 100), *_CLASSES),
    "frames": Target("frames", True, False, "labelled frames", (100, 250, 500, 1000, 2500), *_CLASSES),
    "masks": Target(
        "masks", True, False, "labelled images", (1, 2, 5, 10), {"mIoU": mean_iou}, _one,
        lambda ids: mean_iou(ids, np.full_like(ids, np.bincount(ids).argmax())), "always the most common class",
        whole=False,
    ),
    "states": Target(
        "states", False, False, "labelled frames", (10, 50, 200, 1000), {"R²": r2}, _numbers, lambda _: 0.0,
        "always the mean",
    ),
    "numeric": Target("numeric", False, False, *_SAMPLES, {"R²": r2}, _numbers, lambda _: 0.0, "always the mean"),
    "multi": Target(
        "multi", False, False, *_SAMPLES, {"average precision": average_precision}, _several,
        lambda wanted: float(wanted[:, wanted.any(0)].mean()), "the mean frequency of the labels",
    ),
}  # fmt: skip


def split(
    source: Source, seed: int, fraction: float = 0.2, target: Target = TARGETS["classes"]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the numbers of the labelled samples in two parts, the second with `fraction` of each class, at least one.

    Windows of a video, and pages of a file, are in the same part. Raises `UserError` where no class has two samples (of
    two files).
    """
    assert source.labels is not None
    ids = source.labels.ids if target.by_class else np.minimum(source.labels.ids, 0)
    one, of = whole_files(source)
    generator = np.random.default_rng(seed)
    test = np.zeros(len(one), bool)
    for number in range(int(ids.max(initial=-1)) + 1):
        members = generator.permutation(np.flatnonzero(ids[one] == number))
        test[members[: max(1, round(fraction * len(members)))]] = len(members) > 1
    labelled, test = ids >= 0, test[of]
    if not test.any():
        two = "two labels" if len(one) == len(of) else "labels in two files"
        raise UserError(
            f"no class of {source.name} has {two}, so none can be set aside to measure on: give --test, or more "
            "labels per class (are the labels file names?)"
        )
    return np.flatnonzero(labelled & ~test), np.flatnonzero(labelled & test)


def whole_files(source: Source) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return one labelled sample of each file, by number, and which of these (N,) is of the same file as each sample.

    Where files are samples, that is each sample.
    """
    owners, every = getattr(source, "owners", None), np.arange(len(source))
    if owners is None:
        return every, every
    assert source.labels is not None
    first = np.argsort(source.labels.ids < 0, kind="stable")  # those that have a label
    _, place, of = np.unique(owners[first], return_index=True, return_inverse=True)
    found = np.empty_like(every)
    found[first] = of
    return first[place], found


def draw_labels(
    source: Source, shots: Sequence[int | None], draws: int, seed: int, target: Target = TARGETS["classes"]
) -> Draws:
    """Return `draws` nested draws of labels, as sample numbers by shots."""
    assert source.labels is not None
    ids = source.labels.ids
    if target.by_class:
        return nested_draws(ids, shots, draws, seed)
    return nested_subsets(len(ids), shots, draws, seed)


def read_shots(shots: str | int | Sequence[int | None] | None, target: Target, labels: Labels) -> list[int | None]:
    """Return the numbers of labels asked for, or the default ones that the labels allow; None for all."""
    if shots is None:
        most = int(np.bincount(labels.ids).max()) if target.by_class else len(labels.ids)
        return [*(count for count in target.shots if count <= most), *([None] if target.whole else [])]
    if isinstance(shots, int):
        shots = [shots]
    if not isinstance(shots, str):
        return list(dict.fromkeys(shots))
    counts: list[int | None] = []
    for text in shots.split(","):
        if text.strip() != "all" and not (text.strip().isdecimal() and int(text) > 0):
            raise UserError(f"--shots takes numbers above 0 and 'all', separated by commas, not {shots!r}")
        counts.append(None if text.strip() == "all" else int(text))
    return list(dict.fromkeys(counts))


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"the label {text!r} is not a finite number; correct it, or leave out --target numeric")
    return value
