"""Encoders of recordings (`selfsup.exporters.Exporter`): programs take samples, whatever the encoder takes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from selfsup.exporters.batch_only import FORMATS, open_dims, write
from selfsup.nn.audio.mel import log_mel
from selfsup.spec import WaveSpec

__all__ = ["FORMATS", "open_dims", "program", "write"]


class FromSamples(nn.Module):
    """An encoder behind what it takes: samples (B, N) float32 from -1 to 1, one channel at the spec's rate."""

    def __init__(self, encoder: Any, spec: WaveSpec) -> None:
        super().__init__()
        self.encoder, self.spec = encoder, spec

    def forward(self, x: Tensor) -> Tensor:
        """(B, N) -> (B, dim)."""
        x = log_mel(x, self.spec) if self.spec.form == "logmel" else x
        return self.encoder((x - self.spec.mean) / self.spec.std)


def program(encoder: nn.Module, spec: WaveSpec) -> tuple[nn.Module, Tensor]:
    """Return the encoder behind its spectrograms, and two windows of samples."""
    return FromSamples(encoder, spec).eval(), torch.zeros(2, spec.length)
