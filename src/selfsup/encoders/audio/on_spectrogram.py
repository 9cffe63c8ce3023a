"""An image encoder that reads log-mel spectrograms as grey images."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from selfsup.errors import UserError
from selfsup.spec import WaveSpec


class OnSpectrogram(nn.Module):
    """The representation is that of the image encoder; `frames` are the means over the bands of its last maps.

    Raises `UserError` for an encoder that takes squares alone, as most transformers do.
    """

    def __init__(self, image: Any, name: str, spec: WaveSpec) -> None:
        super().__init__()
        self.image, self.spec, self.dim = image, spec, image.dim
        was = image.training
        try:
            with torch.no_grad():
                image.eval()(spec.example(1))
        except (RuntimeError, AssertionError) as error:
            raise UserError(
                f"{name} cannot take spectrograms of {spec.mels} bands and {spec.columns} columns: give another "
                f"--encoder, such as audio-cnn ({str(error).splitlines()[0]})"
            ) from error
        image.train(was)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, M, T) -> (B, dim)."""
        return self.image(x)

    def maps(self, x: Tensor) -> Tensor:
        """(B, 1, M, T) -> (B, C, M', T'), of convolutional encoders."""
        return self.image.maps(x)

    def frames(self, x: Tensor) -> Tensor:
        """(B, 1, M, T) -> (B, T', C), of convolutional encoders."""
        return self.maps(x).mean(2).transpose(1, 2)

    def frame_times(self) -> NDArray[np.float64]:
        """Return when each of `frames` is (T',), in seconds from the beginning of the window: its middle."""
        with torch.no_grad():
            count = copy.deepcopy(self).eval().frames(self.spec.example(1)).shape[1]
        each = self.spec.columns / count
        return (each * (np.arange(count) + 0.5) - 0.5) * self.spec.hop / self.spec.rate
