"""Log-mel spectrograms, as matrix products: fast on every device, and exported without a Fourier transform."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from selfsup.spec import WaveSpec

FLOOR = 1e-6  # added to the energy of a band before its logarithm: about that of 16-bit noise


def log_mel(x: Tensor, spec: WaveSpec) -> Tensor:
    """Return the natural logarithm of the energy in each mel band, not normalized.

    Args:
        x: Samples from -1 to 1, (B, N) float32. Both ends are continued by their mirror image, so that spectrum k is
            that around sample k · hop.
        spec: The bands, the window and the hop.

    Returns:
        (B, 1, mels, N // hop + 1) float32.
    """
    waves, bands = _matrices(spec.rate, spec.window, spec.mels, spec.low, spec.high, x.device)
    half = spec.window // 2
    padded = F.pad(x, (half, spec.window - half), mode="reflect" if x.shape[-1] > spec.window else "constant")
    frames = padded.unfold(1, spec.window, spec.hop)[:, : x.shape[-1] // spec.hop + 1]
    parts = frames @ waves
    power = parts.unflatten(2, (2, -1)).square().sum(2)
    return (power @ bands + FLOOR).log().transpose(1, 2).unsqueeze(1)


@lru_cache(8)
def _matrices(
    rate: int, window: int, mels: int, low: float, high: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the Hann window times cosines and sines (window, 2 · bins), and the mel bands (bins, mels)."""
    size = 2 ** math.ceil(math.log2(window))
    angle = 2 * math.pi / size * np.outer(np.arange(window), np.arange(size // 2 + 1))
    hann = 0.5 - 0.5 * np.cos(2 * math.pi / window * np.arange(window))
    waves = np.concatenate([hann[:, None] * np.cos(angle), hann[:, None] * np.sin(angle)], 1)
    bands = mel_bands(rate, size, mels, low, high).T
    return torch.tensor(waves, dtype=torch.float32, device=device), torch.tensor(
        bands, dtype=torch.float32, device=device
    )


def mel_bands(rate: int, size: int, mels: int, low: float, high: float) -> NDArray[np.float64]:
    """Return triangular bands (mels, size // 2 + 1) over the bins of a spectrum of `size` samples, of equal area.

    Slaney's mel scale (Auditory Toolbox, 1998), linear up to 1,000 Hz and logarithmic above.
    """
    edges = _hertz(np.linspace(_mel(low), _mel(high), mels + 2))
    bins = np.arange(size // 2 + 1) * rate / size
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    return np.minimum(rising, falling).clip(0) * (2 / (edges[2:] - edges[:-2]))[:, None]


def _mel(hertz: float) -> float:
    return hertz * 3 / 200 if hertz < 1000 else 15 + math.log(hertz / 1000) * 27 / math.log(6.4)


def _hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * math.log(6.4) / 27))
