"""What is predicted: one class a sample, a number, or several labels; how each is drawn, split and scored."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selfsup.errors import UserError
from selfsup.evaluation.draws import nested_draws, nested_subsets
from selfsup.evaluation.metrics import accuracy, average_precision, balanced_accuracy, macro_f1, r2
from selfsup.source import Labels, Source

Draws = Sequence[Mapping[int | None, NDArray[np.int64]]]


@dataclass(frozen=True)
class Target:
    """A kind of label. `metrics` take (truth, predicted); the first is the headline."""

    name: str
    unit: str  # what shots count
    shots: tuple[int, ...]  # the default ones, as far as there are so many labels
    metrics: Mapping[str, Callable[[Any, Any], float]]
    protocols: tuple[str, ...]


_CLASSES = {"accuracy": accuracy, "balanced accuracy": balanced_accuracy, "macro F1": macro_f1}
_PLAIN = ("labelled samples", (10, 20, 50, 100, 200, 500, 1000))
TARGETS = {
    "classes": Target(
        "classes", "labels per class", (1, 2, 5, 10, 20, 50, 100), _CLASSES, ("linear", "knn", "finetune", "attentive")
    ),
    "numeric": Target("numeric", *_PLAIN, {"R²": r2}, ("linear",)),
    "multi": Target("multi", *_PLAIN, {"average precision": average_precision}, ("linear",)),
}


def truth(target: Target, labels: Labels) -> NDArray[Any]:
    """Return what has to be predicted: ids (n,) int64, numbers (n,) float64, or (n, labels) int64 of 0 and 1.

    Several labels are written `a|b|c`; whatever stands between two bars is a label. Every sample has a label.

    Raises:
        UserError: a numeric label that is no finite number.
    """
    if target.name == "classes":
        return labels.ids
    if target.name == "numeric":
        return np.array([_number(name) for name in labels.classes])[labels.ids]
    parts = [{part.strip() for part in name.split("|")} - {""} for name in labels.classes]
    names = sorted(set().union(*parts))
    return np.array([[int(name in own) for name in names] for own in parts], dtype=np.int64)[labels.ids]


def chance(target: Target, wanted: NDArray[Any]) -> tuple[float, str]:
    """Return what a guess that ignores the input reaches on these samples, and which guess that is."""
    if target.name == "classes":
        return float(np.bincount(wanted).max() / len(wanted)), "always the largest class"
    if target.name == "numeric":
        return 0.0, "always the mean"
    return float(wanted[:, wanted.any(0)].mean()), "the mean frequency of the labels"


def split(
    source: Source, seed: int, share: float = 0.2, target: Target = TARGETS["classes"]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the numbers of the labelled samples in two parts, the second with `share` of each class, at least one.

    Raises `UserError` where no class has two samples.
    """
    assert source.labels is not None
    ids = source.labels.ids if target.name == "classes" else np.minimum(source.labels.ids, 0)
    generator = np.random.default_rng(seed)
    test = np.zeros(len(ids), bool)
    for number in range(int(ids.max(initial=-1)) + 1):
        members = generator.permutation(np.flatnonzero(ids == number))
        test[members[: max(1, round(share * len(members)))]] = len(members) > 1
    labelled = ids >= 0
    if not test.any():
        raise UserError(
            f"no class of {source.name} has two labels, so none can be set aside to measure on: give --test, or more "
            "labels of a class; or are the labels file names?"
        )
    return np.flatnonzero(labelled & ~test), np.flatnonzero(labelled & test)


def draw_labels(
    source: Source, shots: Sequence[int | None], draws: int, seed: int, target: Target = TARGETS["classes"]
) -> Draws:
    """Return `draws` nested draws of labels, as sample numbers by shots."""
    assert source.labels is not None
    ids = source.labels.ids
    if target.name == "classes":
        return nested_draws(ids, shots, draws, seed)
    return nested_subsets(len(ids), shots, draws, seed)


def read_shots(shots: str | Sequence[int | None] | None, target: Target, labels: Labels) -> list[int | None]:
    """Return the numbers of labels asked for, or the default ones as far as there are so many; None for all."""
    if shots is None:
        most = int(np.bincount(labels.ids).max()) if target.name == "classes" else len(labels.ids)
        return [*(count for count in target.shots if count <= most), None]
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
        raise UserError(f"the label {text!r} is no finite number; correct it, or leave out --target numeric")
    return value
