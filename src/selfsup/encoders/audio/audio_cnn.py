"""The encoder of BYOL-A (Niizumi et al., 2021, table II), narrower."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from selfsup.spec import WaveSpec

WIDTH, DIM, DROPOUT = 64, 512, 0.3


class AudioCNN(nn.Module):
    """Three convolutions with BatchNorm, ReLU and 2 × 2 pooling, then two layers on all bands of each column.

    The representation is the sum of the largest value and of the mean over time. Its dimension is 512, not 2,048.
    """

    def __init__(self, spec: WaveSpec) -> None:
        super().__init__()
        self.spec, self.dim = spec, DIM
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(before, after, 3, padding=1, bias=False),
                    nn.BatchNorm2d(after),
                    nn.ReLU(inplace=True),
                    nn.MaxPool2d(2, ceil_mode=True),
                )
                for before, after in pairwise((1, WIDTH, WIDTH, WIDTH))
            )
        )
        bands = spec.mels
        for _ in range(3):
            bands = -(-bands // 2)
        self.columns = nn.Sequential(
            nn.Linear(WIDTH * bands, DIM), nn.ReLU(inplace=True), nn.Dropout(DROPOUT), nn.Linear(DIM, DIM),
            nn.ReLU(inplace=True),
        )  # fmt: skip

    def frames(self, x: Tensor) -> Tensor:
        """(B, 1, M, T) -> (B, ⌈T / 8⌉, dim)."""
        return self.columns(self.blocks(x).permute(0, 3, 1, 2).flatten(2))

    def frame_times(self) -> NDArray[np.float64]:
        """Return when each of `frames` is (T,), in seconds from the window's beginning: the middle of 8 spectra."""
        return (8 * np.arange(-(-self.spec.columns // 8)) + 3.5) * self.spec.hop / self.spec.rate

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, M, T) -> (B, dim)."""
        h = self.frames(x)
        return torch.amax(h, 1) + h.mean(1)
