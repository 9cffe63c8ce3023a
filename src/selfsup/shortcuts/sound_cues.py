"""The cues of recordings: numbers that tell with what and how long was recorded, not what is heard."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.encoders.audio.conv_gru import ConvGRU
from selfsup.nn.audio.mel import FLOOR, log_mel
from selfsup.nn.heads import mlp
from selfsup.shortcuts.cues import Cue
from selfsup.spec import WaveSpec

_PARTS, _BANDS, _ENDS = 4, 16, 5  # groups of bands, bands of the mean spectrum, spectra at each end (50 ms)
_SILENCE = math.log(FLOOR) + 0.1  # a spectrum with no band above this is digital silence


def length(x: Tensor) -> Tensor:
    """Return where the first and last spectrum lie that are not digital silence, and how many are."""
    sounding = (x.amax((1, 2)) > _SILENCE).float()  # (B, T)
    place = torch.linspace(0, 1, x.shape[3], device=x.device)
    first = torch.where(sounding > 0, place, 1.0).amin(1)
    return torch.stack([first, (place * sounding).amax(1), sounding.mean(1)], 1)


def floor(x: Tensor) -> Tensor:
    """Return the tenth quietest of the spectra that are not digital silence, in groups of bands."""
    parts = F.adaptive_avg_pool2d(x, (_PARTS, x.shape[3]))[:, 0]
    quiet = torch.where(x.amax((1, 2)) > _SILENCE, 0.0, torch.inf)[:, None]
    found = (parts + quiet).quantile(0.1, 2)
    return torch.where(found.isfinite(), found, parts.amin(2))


def channel(x: Tensor) -> Tensor:
    """Return the mean spectrum about its mean: microphone, room, and who speaks."""
    spectrum = F.adaptive_avg_pool2d(x, (min(_BANDS, x.shape[2]), 1)).flatten(1)
    return spectrum - spectrum.mean(1, keepdim=True)


def level(x: Tensor) -> Tensor:
    """Return how loud it is, on average and at most."""
    return torch.stack([x.mean((1, 2, 3)), x.amax((1, 2, 3))], 1)


def ends(x: Tensor) -> Tensor:
    """Return the first and last 50 ms, in groups of bands."""
    both = torch.cat([x[..., :_ENDS], x[..., -_ENDS:]], 3)
    return F.adaptive_avg_pool2d(both, (_PARTS, 2)).flatten(1)


SOUND_CUES = {
    "length": Cue(length, "how long the recording is: where silence was added"),
    "floor": Cue(floor, "the noise in the background"),
    "channel": Cue(channel, "the mean spectrum: microphone, room and voice"),
    "level": Cue(level, "how loud it is"),
    "ends": Cue(ends, "the first and last 50 ms"),
}


class SoundProbe(nn.Module):
    """An audio encoder -> (B, 128) that sees one cue; `latents` and `gru` as `conv-gru` has them."""

    stride = ConvGRU.stride

    def __init__(self, see: Callable[[Tensor], Tensor], spec: WaveSpec, dim: int = 128) -> None:
        super().__init__()
        self.see, self.spec, self.dim = see, spec, dim
        count = see(torch.zeros(1, 1, spec.mels, spec.columns)).shape[1]
        self.layers = nn.Sequential(nn.BatchNorm1d(count, affine=False), mlp(count, 2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N) or (B, 1, M, T) -> (B, dim)."""
        x = x.detach().float() * self.spec.std + self.spec.mean
        return self.layers(self.see(log_mel(x, self.spec) if self.spec.form == "wave" else x))

    def latents(self, x: Tensor) -> Tensor:
        """(B, N) -> (B, T, dim): what the second half of the window shows, the same at each step."""
        half, steps = x.shape[1] // 2, max(1, x.shape[1] // self.stride)
        self.before = self(x[:, :half])
        return self(x[:, half:])[:, None].expand(-1, steps, -1)

    def gru(self, latents: Tensor) -> tuple[Tensor]:
        """Return the context: what the first half shows. Of the same samples any cue would find itself."""
        return (self.before[:, None].expand_as(latents),)
