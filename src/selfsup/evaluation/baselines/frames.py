"""Raw frames (`selfsup.evaluation.baselines.Baseline`): their mean, and their mean absolute difference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from selfsup.evaluation.features import extract
from selfsup.source import Source
from selfsup.spec import ClipSpec

NAME, STANDARDISED = "raw frames", True
FRAME = "raw frame"  # of labels inside of videos
SIDE = 16  # pixels, at most
ABOUT = {
    NAME: f"the mean of a clip's frames and the mean absolute difference of consecutive ones, in {SIDE} × {SIDE}",
    FRAME: f"the pixels of the frame, averaged down to {SIDE} × {SIDE}",
    "PCA": "the first 64 principal components of those, from the training part without its labels",
}


class Frames(nn.Module):
    """(B, T, C, H, W) -> (B, 2 · C · side²): what is seen, and where something moves."""

    def forward(self, x: Tensor) -> Tensor:
        """Return features."""
        small = F.adaptive_avg_pool2d(x.flatten(0, 1), min(SIDE, x.shape[-1])).unflatten(0, x.shape[:2])
        moved = small.diff(dim=1).abs().mean(1) if x.shape[1] > 1 else torch.zeros_like(small[:, 0])
        return torch.cat([small.mean(1), moved], 1).flatten(1)


class Frame(nn.Module):
    """The pixels of each frame."""

    def __init__(self, spec: ClipSpec) -> None:
        super().__init__()
        self.spec = spec

    def frames(self, x: Tensor) -> Tensor:
        """(B, T, C, H, W) -> (B, T, C · side²)."""
        return F.adaptive_avg_pool2d(x.flatten(0, 1), min(SIDE, x.shape[-1])).flatten(1).unflatten(0, x.shape[:2])

    def frame_times(self) -> NDArray[np.float64]:
        """Return when each frame is shown (T,), in seconds from the beginning of the clip."""
        return self.spec.times()


def features(
    parts: Sequence[Source], spec: ClipSpec, quiet: bool
) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Return the features of the clip in the middle of each video."""
    return [extract(module(spec), part, spec, quiet=quiet, what=NAME) for part in parts]


def images(x: NDArray[np.float32], test_x: NDArray[np.float32], spec: ClipSpec) -> None:
    """Return None: near copies of videos are not looked for."""
    return None


def module(spec: ClipSpec) -> nn.Module:
    """Return the features."""
    return Frames()


def frame_baselines(spec: ClipSpec) -> dict[str, nn.Module]:
    """Return the pixels of a single frame."""
    return {FRAME: Frame(spec)}
