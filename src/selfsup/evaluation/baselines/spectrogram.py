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
BESIDE = 5  # spectra before and behind one
SPECTRUM, SPECTRA = "log-mel", f"log-mel, {2 * BESIDE + 1} spectra"
ABOUT = {
    NAME: f"the log-mel spectrogram, averaged to at most {BANDS} bands and {PARTS} parts of the window",
    SPECTRA: f"of frames, {BESIDE} spectra before and behind as well",
    "PCA": "the first 64 principal components of those, from the training part without its labels",
}


def spectrogram(x: Tensor, spec: WaveSpec) -> Tensor:
    """Return windows of a spec, in either form, as spectrograms (B, 1, M, T)."""
    return log_mel(x * spec.std + spec.mean, spec) if spec.form == "wave" else x


class LogMel(nn.Module):
    """Windows of a spec -> (B, bands · parts); samples become spectrograms first."""

    def __init__(self, spec: WaveSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, x: Tensor) -> Tensor:
        """Return features."""
        x = spectrogram(x, self.spec)
        return F.adaptive_avg_pool2d(x, (min(BANDS, x.shape[2]), min(PARTS, x.shape[3]))).flatten(1)


def features(
    parts: Sequence[Source], spec: WaveSpec, quiet: bool
) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Return the spectrogram of the window in the middle of each recording."""
    return [extract(module(spec), part, spec, quiet=quiet, what=NAME) for part in parts]


def images(x: NDArray[np.float32], test_x: NDArray[np.float32], spec: WaveSpec) -> None:
    """Return None: near copies of recordings are not looked for."""
    return None


def module(spec: WaveSpec) -> nn.Module:
    """Return the features."""
    return LogMel(spec)


class Spectra(nn.Module):
    """The log-mel spectrum of each moment, with `beside` others before and behind it."""

    def __init__(self, spec: WaveSpec, beside: int) -> None:
        super().__init__()
        self.spec, self.beside = spec, beside

    def frames(self, x: Tensor) -> Tensor:
        """Return windows of a spec as (B, T, (2 · beside + 1) · mels)."""
        found = spectrogram(x, self.spec)[:, 0]
        padded = F.pad(found, (self.beside, self.beside), mode="replicate")
        return padded.unfold(2, 2 * self.beside + 1, 1).permute(0, 2, 3, 1).flatten(2)

    def frame_times(self) -> NDArray[np.float64]:
        """Return when each spectrum is (T,), in seconds from the beginning of the window."""
        return np.arange(self.spec.columns) * self.spec.hop / self.spec.rate


def frame_baselines(spec: WaveSpec) -> dict[str, nn.Module]:
    """Return one spectrum, and eleven around each moment."""
    return {SPECTRUM: Spectra(spec, 0), SPECTRA: Spectra(spec, BESIDE)}
