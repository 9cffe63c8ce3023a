"""What is odd about recordings: a bounded look at some of them, counted in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from selfsup.data.audio.decode import about, mono, read_native
from selfsup.data.audio.windows import SILENT
from selfsup.source import Broken

SECONDS = 2.0  # of each recording, from its middle, or of those that are slow to decode from their beginning
FULL, CLIPPED = 0.999, 1e-3  # what counts as full scale, and the part of the samples that are there
OFFSET = 0.2  # of the standard deviation
LOUD = 2.0  # peak: a decoder goes slightly beyond 1
CANCELLED = 0.1  # of the power that the mean of unlike channels has at least

ODD = {  # in this order
    "silent": "are silent (peak below -80 dB)",
    "clipped": "are clipped (more than 0.1% of the samples are at full scale)",
    "offset": "have an offset (the mean is more than a fifth of the standard deviation)",
    "loud": "have samples beyond ±2, which are kept: they are not scaled to ±1",
    "cancelled": "have channels that cancel each other in their mean",
}


def look(paths: Iterable[bytes]) -> tuple[str, ...]:
    """Return a line for each oddity of the recordings, which says how many have it."""
    counts: Counter[str] = Counter()
    looked = 0
    for path in paths:
        try:
            header = about(path)
            length = min(header.samples, max(1, round(SECONDS * header.rate)))
            start = 0 if header.slow else (header.samples - length) // 2
            samples = read_native(path, start, start + length)
        except Broken:
            continue
        looked += 1
        counts.update(odd(samples))
    return tuple(
        f"{counts[word]:,} of {looked:,} recordings looked at, {SECONDS:g} s of each, {ODD[word]}"
        for word in ODD
        if counts[word]
    )


def odd(samples: NDArray[np.float32]) -> list[str]:
    """Return which of `ODD` some samples (N, channels) are."""
    if not len(samples):
        return []
    mixed = mono(samples)
    size = np.abs(samples)
    peak = float(size.max())
    if peak < SILENT:
        return ["silent"]
    power, mixed_power = float(np.square(samples).mean()), float(np.square(mixed).mean())
    found = {
        "clipped": peak <= 1 and float((size >= FULL).mean()) > CLIPPED,
        "offset": abs(float(mixed.mean())) > OFFSET * float(mixed.std()) and float(mixed.max()) >= SILENT,
        "loud": peak > LOUD,
        "cancelled": samples.shape[1] > 1 and mixed_power < CANCELLED * power / samples.shape[1],
    }
    return [word for word, is_so in found.items() if is_so]
