"""The units of HuBERT: k-means clusters of MFCC, then of what the encoder's own middle block makes of the sound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from selfsup.losses import full
from selfsup.nn.audio.mfcc import CEPSTRA, mfcc
from selfsup.nn.kmeans import kmeans, nearest
from selfsup.source import Source
from selfsup.views.audio import AudioViews, Window

SAMPLE, SECONDS, PART = 256, 600.0, 16  # windows that are clustered, their length together at most; computed at once


class Units(nn.Module):
    """Which of `count` clusters the sound belongs to at each latent of an encoder.

    Everything that is stored decides the units, so a resumed run has the same. The clusters are made of the middles of
    a fixed choice of recordings, by every process for itself.
    """

    windows: Tensor  # (R, N), those middles; not stored
    cepstra: Tensor  # (count, 39), centroids of the first round
    features: Tensor  # (count, dim), of the second
    second: Tensor  # bool, whether it has begun

    def __init__(self, encoder: Any, count: int) -> None:
        super().__init__()
        self.spec, self.stride, self.reach = encoder.spec, encoder.stride, encoder.reach
        self.teacher = encoder.first_blocks(max(1, encoder.depth // 2))
        self.register_buffer("windows", torch.zeros(0, encoder.spec.length), persistent=False)
        self.register_buffer("cepstra", torch.zeros(count, 3 * CEPSTRA))
        self.register_buffer("features", torch.zeros(count, encoder.dim))
        self.register_buffer("second", torch.tensor(False))

    def begin(self, source: Source) -> None:
        """Read the windows, and begin the first round unless it has begun."""
        count = min(SAMPLE, len(source), max(1, int(SECONDS / self.spec.seconds)))
        some = np.linspace(0, len(source) - 1, count).astype(np.int64)
        views = AudioViews(self.spec, {"x": Window(at="even")})
        self.windows = views.finish(views.fetch(source, some, 0, 0).batch)["x"].to(self.cepstra)
        if not self.cepstra.any():
            self.cepstra = self._clustered(self._mfcc).to(self.cepstra)

    @torch.no_grad()
    def begin_again(self, encoder: Any) -> None:
        """Begin the second round, with an encoder as it is now."""
        own = encoder.state_dict()
        self.teacher.load_state_dict({key: own[key] for key in self.teacher.state_dict()})
        self.features = self._clustered(self.teacher.frames).to(self.features)
        self.second.fill_(True)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """(B, N) -> (B, T) int64."""
        second = bool(self.second)
        found = full(self.teacher.frames(x)) if second else self._mfcc(x)
        return nearest(found.flatten(0, 1), self.features if second else self.cepstra).view(len(x), -1)

    def _mfcc(self, x: Tensor) -> Tensor:
        """(B, N) -> (B, T, 39): the MFCC nearest to the middle of what each latent sees."""
        found = mfcc(x * self.spec.std + self.spec.mean, self.spec)
        steps = (x.shape[1] - self.reach) // self.stride + 1
        middle = torch.arange(steps, device=x.device) * self.stride + self.reach / 2
        return found[:, (middle / self.spec.hop).round().long()].to(self.cepstra.dtype)

    def _clustered(self, features: Callable[[Tensor], Tensor]) -> Tensor:
        each = [full(features(part)) for part in self.windows.split(PART)]
        return kmeans(torch.cat(each).flatten(0, 1), len(self.cepstra), seed=0)[0]
