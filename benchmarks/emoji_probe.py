"""The linear probe of three-style emoji for the scripts beside it: labels by base emoji, in all its styles."""

from __future__ import annotations

import numpy as np
import torch

from selfsup.data.image import Arrays
from selfsup.data.open import open_data
from selfsup.evaluation.draws import nested_draws
from selfsup.evaluation.features import extract
from selfsup.evaluation.metrics import accuracy
from selfsup.evaluation.probe import fit_probe

SHOTS, DRAWS, STYLES = (1, 5, 10, 20), 10, 3


def draws(train: Arrays, together: int = STYLES) -> list[dict[int, np.ndarray]]:
    """Return draws of base emoji, `together` consecutive images each, as the numbers of their images."""
    drawn = nested_draws(train.labels.ids[::together], SHOTS, DRAWS, 0)
    return [{k: (together * rows[:, None] + np.arange(together)).ravel() for k, rows in draw.items()} for draw in drawn]


def probed(
    encoder: torch.nn.Module, spec: object, device: str, data: str, together: int
) -> tuple[dict[int, list[float]], np.ndarray]:
    """Return the accuracies of a linear probe by labels per class, and the features of the test part."""
    train, test = open_data(f"{data}:train"), open_data(f"{data}:test")
    (_, x), (_, test_x) = (extract(encoder, part, spec, device) for part in (train, test))
    y, test_y, classes = train.labels.ids, test.labels.ids, len(train.labels.classes)
    scores: dict[int, list[float]] = {}
    for draw in draws(train, together):
        for shots, rows in draw.items():
            probe = fit_probe(x[rows], y[rows], classes)
            scores.setdefault(shots, []).append(accuracy(test_y, probe.predict(test_x)))
    return scores, test_x
