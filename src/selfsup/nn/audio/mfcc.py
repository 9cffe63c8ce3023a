"""Mel-frequency cepstral coefficients (Davis & Mermelstein, 1980), on the device."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.nn.audio.mel import log_mel
from selfsup.spec import WaveSpec

MELS, CEPSTRA, REACH = 40, 13, 2  # bands, coefficients, spectra on each side of a difference


def mfcc(x: Tensor, spec: WaveSpec) -> Tensor:
    """Return 13 coefficients of each spectrum, their differences in time, and the differences of these.

    Args:
        x: Samples from -1 to 1, (B, N).
        spec: The rate, and the window and the hop of the spectra.

    Returns:
        (B, N // hop + 1, 39) float32, as `log_mel` of 40 bands has spectra. The coefficients are the first of the
        orthonormal cosine transform; a difference is the slope of a line through the 2 · 2 + 1 nearest spectra.
    """
    bands = log_mel(x.float(), replace(spec, form="logmel", mels=MELS))[:, 0]
    cosines = math.pi / MELS * torch.outer(torch.arange(CEPSTRA), torch.arange(MELS) + 0.5)
    transform = cosines.cos() * math.sqrt(2 / MELS)
    transform[0] /= math.sqrt(2)
    first = transform.to(bands) @ bands
    second = _slope(first)
    return torch.cat([first, second, _slope(second)], 1).transpose(1, 2)


def _slope(x: Tensor) -> Tensor:
    """(B, C, T) -> (B, C, T)."""
    weight = torch.arange(-REACH, REACH + 1, device=x.device, dtype=x.dtype)
    padded = F.pad(x, (REACH, REACH), mode="replicate")
    return padded.unfold(2, 2 * REACH + 1, 1) @ (weight / weight.square().sum())
