"""The encoder of CPC on sound (van den Oord et al., 2018, section 3.1), narrower."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from selfsup.nn.norm import ChannelNorm
from selfsup.spec import WaveSpec

KERNELS, STRIDES = (10, 8, 4, 4, 4), (5, 4, 2, 2, 2)
WIDTH = 128


class ConvGRU(nn.Module):
    """Five strided convolutions, a latent every 160 samples (10 ms at 16 kHz), and a GRU over them.

    The representation is the mean of the GRU's states over time. Channels are normalized at each step (Rivière et al.,
    2020, section 3.1): BatchNorm would let steps and recordings know of each other. The paper's widths are 512 and 256.
    """

    stride = 160

    def __init__(self, spec: WaveSpec) -> None:
        super().__init__()
        self.spec, self.dim, self.count = spec, WIDTH, spec.length
        layers: list[nn.Module] = []
        for place, (kernel, stride) in enumerate(zip(KERNELS, STRIDES, strict=True)):
            padding = (kernel - stride + 1) // 2
            self.count = (self.count + 2 * padding - kernel) // stride + 1
            layers += [
                nn.Conv1d(WIDTH if place else 1, WIDTH, kernel, stride, padding=padding),
                ChannelNorm(WIDTH),
                nn.ReLU(inplace=True),
            ]
        self.convolutions = nn.Sequential(*layers)
        self.gru = nn.GRU(WIDTH, WIDTH, batch_first=True)

    def latents(self, x: Tensor) -> Tensor:
        """(B, N) -> (B, T, width), before the GRU: each sees 465 samples."""
        return self.convolutions(x[:, None]).transpose(1, 2)

    def frames(self, x: Tensor) -> Tensor:
        """(B, N) -> (B, T, dim): the context at each latent, which knows what came before."""
        return self.gru(self.latents(x))[0]

    def frame_times(self) -> NDArray[np.float64]:
        """Return when each of `frames` is (T,), in seconds from the beginning of the window: the middle of its step."""
        return (np.arange(self.count) + 0.5) * self.stride / self.spec.rate

    def forward(self, x: Tensor) -> Tensor:
        """(B, N) -> (B, dim)."""
        return self.frames(x).mean(1)
