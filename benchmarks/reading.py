"""Frozen encoders read with few labels, for the scripts beside it: features once, then every reader."""

from __future__ import annotations

from typing import Any

import torch

from selfsup.data.image import Arrays
from selfsup.evaluation.few_labels import read_features
from selfsup.evaluation.frozen import FrozenEncoder, encode
from selfsup.evaluation.targets import TARGETS, draw_labels
from selfsup.source import Source
from selfsup.train.recalibrate import recalibrate

READERS = ("linear", "propagate")
Read = dict[tuple[str, int], list[float]]


def read(
    encoder: torch.nn.Module, spec: Any, train: Source, test: Source, shots: list[int], draws: int,
    readers: tuple[str, ...] = READERS, untrained: bool = False,
) -> Read:  # fmt: skip
    """Return the accuracy of each draw, by reader and labels per class, as `selfsup evaluate` measures it."""
    if untrained:
        recalibrate(encoder, train, spec, seed=0, device="cpu")
    pool, tested = encode(FrozenEncoder("encoder", encoder, spec), (train, test), torch.device("cpu"), True, True)
    assert train.labels is not None
    assert test.labels is not None
    drawn, target = draw_labels(train, shots, draws, 0), TARGETS["classes"]
    found = read_features("encoder", readers, pool, tested, train.labels, target.truth(test.labels), drawn, target)
    return {
        (reader, int(k or 0)): [values[next(iter(target.metrics))] for values in each]
        for (_, reader, k), each in found.items()
    }


def some(source: Any, count: int) -> Arrays:
    """Return about so many samples of a source of arrays, evenly."""
    rows = torch.arange(0, len(source), max(1, len(source) // count)).numpy()
    return source.take(rows)
