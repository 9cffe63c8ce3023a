"""What every source of recordings needs to make a spec of windows, and to fit one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch

from selfsup.errors import UserError
from selfsup.nn.audio.mel import log_mel
from selfsup.source import Broken, Source
from selfsup.spec import Spec, WaveSpec
from selfsup.spec.wave import FORMS, MAX_MELS, MAX_RATE, MAX_SECONDS

RATE, MELS = 16_000, 64
WINDOW, HOP, LOW, HIGH = 0.025, 0.01, 60.0, 7800.0  # of a spectrogram: seconds, seconds, Hz, Hz
LEAST_RATE, LEAST_SECONDS, LEAST_MELS = 1000, 0.02, 8
SILENT = 1e-4  # peak, -80 dB


def wave_spec(rate: int | None, seconds: float, form: str | None, mels: int | None) -> WaveSpec:
    """Return the spec with the options that were given; raise `UserError` for values out of their range."""
    if form not in (None, *FORMS):
        raise UserError(f"--form is {' or '.join(FORMS)}, not {form!r}")
    if mels is not None and form == "wave":
        raise UserError("--mels is for spectrograms: leave it out, or give --form logmel")
    for flag, value, least, most in (
        ("rate", rate, LEAST_RATE, MAX_RATE), ("seconds", seconds, LEAST_SECONDS, MAX_SECONDS),
        ("mels", mels, LEAST_MELS, MAX_MELS),
    ):  # fmt: skip
        if value is not None and not least <= value <= most:
            raise UserError(f"--{flag} is from {least:,} to {most:,}, not {value}")
    rate = rate or RATE
    window, hop, high = round(WINDOW * rate), round(HOP * rate), min(HIGH, 0.49 * rate)
    return WaveSpec(rate, seconds, form or FORMS[0], mels or MELS, window, hop, LOW, high)


def waves_only(name: str, spec: Spec) -> WaveSpec:
    """Return the spec; raise `UserError` for one of another kind than the recordings of this name."""
    if not isinstance(spec, WaveSpec):
        raise UserError(f"{name} holds no {spec.samples}, which this encoder takes")
    return spec


def measured(source: Source, spec: WaveSpec, numbers: Iterable[int]) -> WaveSpec:
    """Return the spec with the mean and standard deviation of what the middles of some recordings hold.

    The same spec where all of them are silent.
    """
    values = []
    for index in numbers:
        try:
            start = max(0, source.extent(index) - spec.length) // 2
            samples = source.read(index, slice(start, start + spec.length))
        except Broken:
            continue
        if len(samples) and np.abs(samples).max() >= SILENT:
            x = torch.from_numpy(samples)[None]
            values.append((log_mel(x, spec) if spec.form == "logmel" else x).flatten().double())
    if not values:
        return spec
    whole = torch.cat(values)
    return replace(spec, mean=round(float(whole.mean()), 4), std=max(round(float(whole.std()), 4), 1e-4))
