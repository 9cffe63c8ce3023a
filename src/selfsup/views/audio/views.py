"""Views of recordings: windows are cut in `fetch`, and become log-mel spectrograms on the device, in `finish`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from selfsup.base import buffers
from selfsup.errors import UserError
from selfsup.nn.audio.mel import log_mel
from selfsup.source import Broken, Source
from selfsup.spec import WaveSpec
from selfsup.task import Batch, Fetched
from selfsup.views.random import uniform
from selfsup.views.reading import of_samples, read_or_substitute

# Draws of a view: 0 place, 1 speed, 2 other recording, 3 place in it, 4 mix, 5 gain, 6 to 9 crop, 10 to 13 masks,
# 14 to 16 channel.
COLUMNS = 17
CANVAS = 1.5  # length of the canvas of a crop, in windows; it is no higher than the window


@dataclass(frozen=True)
class Window:
    """`count` windows of a recording, and what happens to each.

    A recording that is shorter than the window lies somewhere in silence; for evaluation (`even`) in its middle.

    - at: `random`, each window anywhere; `same`, all at the same random place; `even`, the middles of equal parts;
      `start`, its beginning.
    - speed: played slower or faster by a factor of up to 1 + `speed`, pitch and all, by linear interpolation.
    - gain: louder or softer by up to so many decibels.
    - channel: heard through another microphone or room, whose response is a smooth curve over the bands, of up to so
      many decibels. Log-mel only.
    - mix: another recording is mixed in, with a fraction of up to `mix` of the energy (log-mixup-exp: Niizumi et al.,
      2021, section III-B). Log-mel only.
    - crop: a part between (low, high) of the height and length of the spectrogram, stretched to its size; taken from a
      canvas 1.5 times as long, which is the mean beyond the window (Niizumi et al., 2021, section III-C). Log-mel only.
    - masks: up to so many neighbouring bands, and so many spectra, are the mean (SpecAugment: Park et al., 2019).
      Log-mel only.
    """

    count: int = 1
    at: Literal["random", "same", "even", "start"] = "random"
    speed: float = 0.0
    gain: float = 0.0
    channel: float = 0.0
    mix: float = 0.0
    crop: tuple[float, float] | None = None
    masks: tuple[int, int] | None = None

    @property
    def cut(self) -> int:
        """How many windows are read for the views: one where all are of the same place."""
        return 1 if self.at == "same" else self.count


@dataclass(frozen=True)
class AudioViews:
    """Windows of recordings: one batch key a group, (B, V, ...) for several views, else (B, ...).

    Each is float32, normalized: samples (N,) or log-mel spectrograms (1, mels, T), as the spec's form says. Further
    keys: `index` (B,) int64; with `labels` also `y` (B,) int64; with `noise` the keys `noise` (B,) int64 of
    `selfsup.nn.noise`. All are functions of (seed, epoch, index), the recording that is mixed in too: BYOL-A takes it
    from a queue of earlier batches, which a resumed run would not have.
    """

    spec: WaveSpec
    groups: Mapping[str, Window] = field(default_factory=dict)
    labels: bool = False
    noise: bool = False

    def __post_init__(self) -> None:
        if self.spec.form == "wave" and any(w.channel or w.mix or w.crop or w.masks for w in self.groups.values()):
            raise UserError("samples are not mixed, cropped and masked as spectrograms are: give --form logmel")

    def for_device(self, device: torch.device | str) -> AudioViews:
        """Return the same: spectrograms are made on the device."""
        return self

    def fetch(self, source: Source, indices: NDArray[np.int64], seed: int, epoch: int) -> Fetched:
        """Return the windows of len(indices) recordings, as `<group>.samples` (B, V, N) and `<group>.draws`.

        A recording that cannot be read is replaced by another one.
        """
        source, count, length = source.conform(self.spec), len(indices), self.spec.length
        used = np.empty(count, np.int64)
        skipped: list[tuple[int, str]] = []
        outs = {}
        for key, window in self.groups.items():
            others = window.count if window.mix else 0
            outs[key] = buffers.empty((count, window.cut + others, length), np.float32)

        def read(index: int) -> list[NDArray[np.float32]]:
            u, first = _draws(self.groups, seed, epoch, np.array([index]))[0], 0
            found = []
            for window in self.groups.values():
                mine, first = u[first : first + window.count], first + window.count
                windows = [_cut(source, index, length, window, mine[k], k) for k in range(window.cut)]
                if window.mix:
                    windows += [_other(source, length, window, mine[k], seed, epoch) for k in range(window.count)]
                found.append(np.stack(windows))
            return found

        for row, wanted in enumerate(indices.tolist()):
            made, used[row], broken = read_or_substitute(source, wanted, seed, epoch, read)
            skipped += broken
            for out, windows in zip(outs.values(), made, strict=True):
                out[row] = windows
        u, first = _draws(self.groups, seed, epoch, used).astype(np.float32), 0
        batch: dict[str, Tensor] = {"index": torch.from_numpy(used)}
        for key, window in self.groups.items():
            batch[f"{key}.samples"] = torch.from_numpy(outs[key])
            batch[f"{key}.draws"] = torch.from_numpy(u[:, first : first + window.count].copy())
            first += window.count
        return Fetched(batch | of_samples(source, used, seed, epoch, self.labels, self.noise), tuple(skipped))

    def finish(self, batch: Batch) -> Batch:
        """Return the batch with each group as the encoder takes it, float32."""
        done = dict(batch)
        for key, window in self.groups.items():
            if f"{key}.samples" in done:
                x = self._finished(window, done.pop(f"{key}.samples"), done.pop(f"{key}.draws"))
                done[key] = x if window.count > 1 else x[:, 0]
        return done

    def _finished(self, window: Window, samples: Tensor, u: Tensor) -> Tensor:
        """(B, V', N) -> (B, V, N) or (B, V, 1, mels, T); V' is what `fetch` cut: one window if all views share it."""
        spec = self.spec
        louder = math.log(10) / 20 * window.gain * (2 * u[..., 5] - 1)  # logarithm of the factor
        if spec.form == "wave":
            x = samples.expand(-1, window.count, -1)
            return ((x * louder.exp()[..., None] if window.gain else x) - spec.mean) / spec.std
        x = log_mel(samples.flatten(0, 1), spec).unflatten(0, samples.shape[:2])
        x, other = x[:, : window.cut].expand(-1, window.count, -1, -1, -1), x[:, window.cut :]
        if window.mix:
            fraction = (window.mix * u[..., 4, None, None, None]).clamp_min(1e-6)
            x = torch.logaddexp(x + torch.log1p(-fraction), other + fraction.log())
        if window.gain:
            x = x + 2 * louder[..., None, None, None]
        if window.channel:
            x = x + math.log(10) / 10 * window.channel * _curve(u[..., 14:], spec.mels)[:, :, None, :, None]
        x = (x - spec.mean) / spec.std
        if window.crop:
            x = _crop(x.flatten(0, 1), u.flatten(0, 1), *window.crop).view_as(x)
        return _masked(x, u, *window.masks) if window.masks else x


def _curve(u: Tensor, bands: int) -> Tensor:
    """Return smooth curves (B, V, bands) from -1 to 1: three waves of half, one and one and a half periods."""
    place = torch.linspace(0, math.pi, bands, device=u.device)
    waves = torch.stack([(k * place).cos() for k in (1, 2, 3)])
    return (2 * u - 1) @ waves / 3


def _crop(x: Tensor, u: Tensor, low: float, high: float) -> Tensor:
    """Return a part of each spectrogram (B, 1, M, T), stretched to its size."""
    height = (low + (high - low) * u[:, 6]).clamp_max(1)
    width = (low + (high - low) * u[:, 7]).clamp_max(CANVAS)
    up, right = (1 - height) * (2 * u[:, 8] - 1), (CANVAS - width) * (2 * u[:, 9] - 1)  # of the middle, in [-1, 1]
    zero = torch.zeros_like(up)
    theta = torch.stack([width, zero, right, zero, height, up], 1).view(-1, 2, 3)
    return F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)


def _masked(x: Tensor, u: Tensor, bands: int, spectra: int) -> Tensor:
    """Return spectrograms (B, V, 1, M, T) with some bands and some spectra set to the mean."""
    for axis, widest, column in ((3, bands, 10), (4, spectra, 12)):
        size = x.shape[axis]
        wide = (u[..., column] * (min(widest, size) + 1)).floor()
        start = (u[..., column + 1] * (size - wide + 1)).floor()
        place = torch.arange(size, device=x.device)
        hidden = (place >= start[..., None]) & (place < (start + wide)[..., None])  # (B, V, size)
        x = x.masked_fill(hidden[:, :, None, :, None] if axis == 3 else hidden[:, :, None, None, :], 0.0)
    return x


def _draws(groups: Mapping[str, Window], seed: int, epoch: int, index: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the draws of all views of all groups (B, V, COLUMNS)."""
    views = sum(window.count for window in groups.values())
    return uniform(seed, epoch, index, views * COLUMNS).reshape(len(index), views, COLUMNS)


def _cut(
    source: Source, index: int, length: int, window: Window, u: NDArray[np.float64], place: int
) -> NDArray[np.float32]:
    """Return a window (length,) of a recording; `u` are its draws, `place` its number."""
    faster = 1 + window.speed * (2 * u[1] - 1) if window.speed else 1.0
    span, extent = max(1, round(length * faster)), source.extent(index)
    if not extent:
        source.read(index)  # says why
        raise Broken("no samples")
    part = {"even": (place + 0.5) / window.count, "start": 0.0}.get(window.at, float(u[0]))
    start = int(part * (abs(extent - span) + 1))  # of the window in the recording, or of the recording in the window
    if extent >= span:
        x = source.read(index, slice(start, start + span))
    else:
        x = np.zeros(span, np.float32)
        x[start : start + extent] = source.read(index)
    if span == length:
        return x
    return np.interp(np.linspace(0, span - 1, length), np.arange(span), x).astype(np.float32)


def _other(
    source: Source, length: int, window: Window, u: NDArray[np.float64], seed: int, epoch: int
) -> NDArray[np.float32]:
    """Return a window of another recording."""
    there = np.array([u[3], u[1]])
    found, _, _ = read_or_substitute(
        source, int(u[2] * len(source)), seed, epoch, lambda index: _cut(source, index, length, window, there, 0)
    )
    return found
