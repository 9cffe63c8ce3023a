"""Frozen encoders read with few labels, for the scripts beside it: features once, then every reader."""

from __future__ import annotations

from typing import Any

import torch

from results import Scores
from selfsup.data.image import Arrays
from selfsup.evaluation.few_labels import read_features
from selfsup.evaluation.frozen import FrozenEncoder, encode
from selfsup.evaluation.targets import TARGETS, draw_labels
from selfsup.source import Source
from selfsup.train.recalibrate import recalibrate

READERS = ("linear", "propagate")


def scores(
    name: str, encoder: torch.nn.Module, spec: Any, train: Source, test: Source, shots: str, draws: int,
    readers: tuple[str, ...] = READERS, untrained: bool = False,
) -> Scores:  # fmt: skip
    """Return what an encoder of this name scores, as `selfsup evaluate` measures it."""
    if untrained:
        recalibrate(encoder, train, spec, seed=0, device="cpu")
    pool, tested = encode(FrozenEncoder("encoder", encoder, spec), (train, test), torch.device("cpu"), True, True)
    assert train.labels is not None
    assert test.labels is not None
    counts = [int(k) for k in shots.split(",")]
    drawn, target = draw_labels(train, counts, draws, 0), TARGETS["classes"]
    found = read_features("encoder", readers, pool, tested, train.labels, target.truth(test.labels), drawn, target)
    told: Scores = {f"{name}, {reader}": {} for reader in readers}
    for (_, reader, k), each in found.items():
        told[f"{name}, {reader}"][str(k)] = [round(values[next(iter(target.metrics))], 6) for values in each]
    return told


def some(source: Any, count: int) -> Arrays:
    """Return about so many samples of a source of arrays, evenly."""
    rows = torch.arange(0, len(source), max(1, len(source) // count)).numpy()
    return source.take(rows)
