"""Recordings as an encoder takes them: windows of samples, or of their log-mel spectrogram."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from selfsup.spec.media import Media, Waveform

FORMS = ("logmel", "wave")
MAX_RATE, MAX_SECONDS, MAX_MELS = 192_000, 600.0, 256
SHOWN = 3.0  # standard deviations from the mean to black and to white


@dataclass(frozen=True)
class WaveSpec:
    """Windows of `seconds` of one channel at `rate` samples a second, normalized: (x - mean) / std.

    `form`: `wave`, (B, N) float32 samples; or `logmel`, (B, 1, mels, T) float32, the log-mel spectrogram of it, as
    `selfsup.nn.audio.mel.log_mel` makes it: bands of equal width in mel from `low` to `high` Hz, of spectra of
    `window` samples, `hop` samples apart. `mean` and `std` are those of the form's values.
    """

    kind: ClassVar[str] = "audio"
    samples: ClassVar[str] = "recordings"
    of_training: ClassVar[tuple[str, ...]] = ()
    channels: ClassVar[int] = 1

    rate: int
    seconds: float
    form: str = "logmel"
    mels: int = 64
    window: int = 400
    hop: int = 160
    low: float = 60.0
    high: float = 7800.0
    mean: float = 0.0
    std: float = 1.0

    @property
    def axes(self) -> str:
        """The axes of a batch."""
        return "BT" if self.form == "wave" else "BCMT"

    @property
    def length(self) -> int:
        """The number of samples of a window."""
        return max(1, round(self.rate * self.seconds))

    @property
    def columns(self) -> int:
        """The number of spectra of a window."""
        return self.length // self.hop + 1

    def example(self, n: int) -> Tensor:
        """Return zeros: (n, N), or (n, 1, mels, T)."""
        shape = (self.length,) if self.form == "wave" else (1, self.mels, self.columns)
        return torch.zeros(n, *shape)

    def describe(self) -> str:
        """Return the length of a window, the rate and the form."""
        form = f", as {self.mels} mel bands" if self.form == "logmel" else ""
        return f"{self.seconds:.3g} s at {self.rate:,} Hz{form}"

    def draw(self, x: Tensor) -> Media:
        """Return a window (N,) as a sound, and a log-mel spectrogram (1, mels, T) as an image, high tones on top."""
        if x.ndim == 1:
            return Waveform(x.detach().float().cpu().numpy() * self.std + self.mean, self.rate)
        grey = (x[0].detach().float().cpu().numpy()[::-1] / (2 * SHOWN) + 0.5).clip(0, 1)
        return Image.fromarray((255 * grey).astype(np.uint8)).convert("RGB")

    def to_json(self) -> dict[str, Any]:
        """Return all fields."""
        return {"kind": self.kind, **asdict(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], folder: Path) -> WaveSpec:
        """Return the spec; ValueError for impossible rates, lengths, bands, means or standard deviations."""
        given = {field.name: values[field.name] for field in fields(cls)}
        whole = [given[key] for key in ("rate", "mels", "window", "hop")]
        if not all(type(value) is int for value in whole):
            raise ValueError("the rate, mels, window or hop are not whole numbers")
        given |= {key: float(given[key]) for key in ("seconds", "low", "high", "mean", "std")}
        found = cls(**given)
        sound = (
            0 < found.rate <= MAX_RATE
            and 0 < found.seconds <= MAX_SECONDS
            and found.form in FORMS
            and 0 < found.mels <= MAX_MELS
            and 0 < found.hop <= found.window <= MAX_RATE
            and 0 <= found.low < found.high <= found.rate / 2
            and math.isfinite(found.mean)
            and 0 < found.std < math.inf
        )
        if not sound:
            raise ValueError("it has an impossible spec")
        return found

    def save(self, folder: Path) -> None:
        """Write nothing: the recipe contains everything."""
