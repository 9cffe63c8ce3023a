"""Log-mel spectrograms (`selfsup.evaluation.baselines.Baseline`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from selfsup.evaluation.features import extract
from selfsup.nn.audio.mel import log_mel
from selfsup.source import Source
from selfsup.spec import WaveSpec

NAME, STANDARDISED = "log-mel", True
BANDS, PARTS = 32, 16  # of the features, at most
ABOUT = {
    NAME: f"the log-mel spectrogram, averaged to at most {BANDS} bands and {PARTS} parts of the window",
    "PCA": "the first 64 principal components of those, from the training part without its labels",
}


class LogMel(nn.Module):
    """Windows of a spec -> (B, bands · parts); samples become spectrograms first."""

    def __init__(self, spec: WaveSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, x: Tensor) -> Tensor:
        """Return features."""
        if self.spec.form == "wave":
            x = log_mel(x * self.spec.std + self.spec.mean, self.spec)
        return F.adaptive_avg_pool2d(x, (min(BANDS, x.shape[2]), min(PARTS, x.shape[3]))).flatten(1)


def features(
    parts: Sequence[Source], spec: WaveSpec, quiet: bool
) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Return the spectrogram of the window in the middle of each recording."""
    return [extract(module(spec), part, spec, quiet=quiet) for part in parts]


def images(x: NDArray[np.float32], test_x: NDArray[np.float32], spec: WaveSpec) -> None:
    """Return None: near copies of recordings are not looked for."""
    return None


def module(spec: WaveSpec) -> nn.Module:
    """Return the features."""
    return LogMel(spec)
