"""Raw pixels (`selfsup.evaluation.baselines.Baseline`)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from selfsup.evaluation.features import extract
from selfsup.source import Source
from selfsup.spec import ImageSpec

NAME, STANDARDISED = "raw pixels", True
SIDE = 32  # pixels, at most
ABOUT = {
    NAME: f"averaged down to at most {SIDE} × {SIDE}",
    "PCA": "the first 64 principal components of those pixels, from the training part without its labels",
}


class Pixels(nn.Module):
    """(B, C, H, W) -> (B, C · side²): the pixels, averaged down to at most 32 a side."""

    def forward(self, x: Tensor) -> Tensor:
        """Return features."""
        return (F.adaptive_avg_pool2d(x, SIDE) if max(x.shape[2:]) > SIDE else x).flatten(1)


def features(
    parts: Sequence[Source], spec: ImageSpec, quiet: bool
) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Return the pixels."""
    return [extract(module(spec), part, spec, quiet=quiet, what=NAME) for part in parts]


def images(
    x: NDArray[np.float32], test_x: NDArray[np.float32], spec: ImageSpec
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the pixels as they lie in the images: (n, C, H, W)."""
    side = math.isqrt(x.shape[1] // spec.channels)
    return x.reshape(-1, spec.channels, side, side), test_x.reshape(-1, spec.channels, side, side)


def module(spec: ImageSpec) -> nn.Module:
    """Return the pixels."""
    return Pixels()
