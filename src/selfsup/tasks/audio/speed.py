"""At which rate is a recording played? The pretext task of SpeedNet (Benaim et al., 2020), on sound."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.errors import UserError
from selfsup.nn import noise
from selfsup.nn.heads import classified, mlp
from selfsup.spec import WaveSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.audio import AudioViews, Window

RATES = ((4, 5), (1, 1), (5, 4), (3, 2))  # as fractions
CUT, HALF = 0.35, 16  # cycles a sample that every rate keeps (5.6 kHz of 16), of at most 0.4; samples of the filter


class Speed(Task):
    """Predict at which of 4 rates a recording is played: 0.8, 1, 1.25 or 1.5. Chance is ln 4.

    Faster is higher and shorter, as of a tape. For recordings of things whose pitch, timbre and tempo are known, such
    as voices and instruments; not for wind.

    Counter-measures: interpolation would leave a mark of the rate in the high tones, so one filter resamples and cuts
    all rates off at the same frequency, 0.35 of the sampling rate. Recordings that are cut off lower themselves, as
    from a telephone or an MP3, show the rate by that edge: give a smaller --rate.

    Batch: `x` (B, N) float; `noise` (B,) int64, the key of the rate.
    Deviations: from SpeedNet, which sorts videos into normal and twice as fast: another kind of data, four rates.

    Args:
        hidden_dim: Width of the head's hidden layer, in [1, inf).
    """

    paper = "Benaim et al., 2020"
    section = "audio"
    kind = "audio"
    default_encoder = small_encoder = "conv-gru"
    data_defaults = {"form": "wave"}  # noqa: RUF012

    def __init__(self, encoder: Encoder, *, hidden_dim: int = 128) -> None:
        super().__init__(encoder)
        if encoder.spec.form != "wave":
            raise UserError("speed plays samples at another rate: give --form wave")
        self.head = mlp(encoder.dim, hidden_dim, len(RATES))

    def views(self, spec: WaveSpec) -> AudioViews:
        """Return a window from anywhere in the recording."""
        return AudioViews(spec, {"x": Window()}, noise=True)

    def played(self, x: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Return the windows at a rate each (B, ~N / 1.6), and the number of the rate (B,) int64."""
        each = [resampled(x, *rate) for rate in RATES]
        length = min(version.shape[1] for version in each)
        label = noise.integers(key, len(RATES))
        versions = torch.stack([version[:, :length] for version in each], 1)
        return versions[torch.arange(len(x), device=x.device), label], label

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy of the rate."""
        x, label = self.played(batch["x"], batch["noise"])
        return classified(self.head(self.encoder(x)), label)

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the recording as it is played, and its rate."""
        x, label = self.played(batch["x"], batch["noise"])
        guesses = self.head(self.encoder(x)).argmax(1) if guess else label
        said = [f"{up / down:g} times as fast" for up, down in RATES]
        return [
            [Panel(sound, said[y] + (f" (guess: {said[g]})" if guess else ""))]
            for sound, y, g in zip(x, label.tolist(), guesses.tolist(), strict=True)
        ]


def resampled(x: Tensor, up: int, down: int) -> Tensor:
    """Return windows (B, N) played `up` / `down` times as fast, without what lies above `CUT`: (B, ~N · down / up).

    `down` filters, one for each place between two samples that a result can have, every `up` samples. They are the same
    function of time in the result (a sinc with Hann's window), so all rates keep the same band, and nothing is mirrored
    down into it.
    """
    half = math.ceil(HALF * up / down)
    phase = torch.arange(down, device=x.device, dtype=x.dtype)[:, None] * up / down
    tap = torch.arange(2 * half + up, device=x.device, dtype=x.dtype)
    time = (half + phase - tap) * down / up  # in samples of the result
    filters = torch.sinc(2 * CUT * time) * torch.cos(math.pi / 2 * (time / HALF).clamp(-1, 1)).square()
    filters = filters / filters.sum(1, keepdim=True)
    return F.conv1d(x[:, None], filters[:, None], stride=up).transpose(1, 2).flatten(1)
