"""The samples themselves as features, for each kind of data: the row that every representation has to beat."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray
from torch import nn

from selfsup.source import Source
from selfsup.spec import Spec

BASELINES = {
    "image": "selfsup.evaluation.baselines.pixels",
    "text": "selfsup.evaluation.baselines.tfidf",
    "video": "selfsup.evaluation.baselines.frames",
    "audio": "selfsup.evaluation.baselines.spectrogram",
    "trajectory": "selfsup.evaluation.baselines.observations",
}


class Baseline(Protocol):
    """The baseline of a kind of data; a module."""

    NAME: str  # of the row
    STANDARDISED: bool  # whether the linear probe scales each of its features
    ABOUT: Mapping[str, str]  # what the baselines are, in words

    def features(self, parts: Sequence[Source], spec: Spec, quiet: bool) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        """Return for each part the numbers of the samples that can be read, and their features (n, d) float32.

        Whatever the features need to know about the data they learn from the first part, without its labels.
        """

    def images(self, x: NDArray[Any], test_x: NDArray[Any], spec: Spec) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """Return these features of two parts as images (n, C, H, W), by which near copies are found; None for none."""

    def module(self, spec: Spec) -> nn.Module | None:
        """Return the module that makes the features of a batch; None where they depend on other samples."""


def baseline(kind: str) -> Baseline:
    """Return the baseline of a kind of data."""
    found: Baseline = importlib.import_module(BASELINES[kind])
    return found


def frame_baselines(spec: Spec) -> dict[str, nn.Module]:
    """Return, by the names of their rows, modules with `frames` and `frame_times` as encoders have: each frame itself.

    A kind of data whose samples have a length in time has such a function in its module. The linear probe scales their
    features as `STANDARDISED` says.
    """
    found: dict[str, nn.Module] = importlib.import_module(BASELINES[spec.kind]).frame_baselines(spec)
    return found


def baseline_names() -> tuple[str, ...]:
    """Return the rows of all kinds of data."""
    return tuple(baseline(kind).NAME for kind in BASELINES)
