"""Raw pixels of an observation (`selfsup.evaluation.baselines.Baseline`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from selfsup.evaluation.baselines.pixels import SIDE, Pixels
from selfsup.evaluation.features import extract
from selfsup.source import Source
from selfsup.spec import TrajectorySpec

NAME, STANDARDISED = "raw observation", True
ABOUT = {
    NAME: f"the pixels of the observation, averaged down to at most {SIDE} × {SIDE}",
    "PCA": "the first 64 principal components of those pixels, from the training part without its labels",
}


def features(
    parts: Sequence[Source], spec: TrajectorySpec, quiet: bool
) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Return the pixels of the observation in the middle of each episode."""
    return [extract(module(spec), part, spec, quiet=quiet, what=NAME) for part in parts]


def images(x: NDArray[np.float32], test_x: NDArray[np.float32], spec: TrajectorySpec) -> None:
    """Return None: near copies of episodes are not looked for."""
    return None


def module(spec: TrajectorySpec) -> nn.Module:
    """Return the pixels."""
    return Pixels()
