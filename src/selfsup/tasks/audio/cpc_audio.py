"""Contrastive predictive coding of sound (van den Oord et al., 2018, section 3.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from selfsup.base.distributed import gather
from selfsup.errors import UserError
from selfsup.losses import full
from selfsup.nn import noise
from selfsup.nn.heads import accuracy
from selfsup.spec import WaveSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.audio import AudioViews, Window


class CPCAudio(Task):
    """Predict the latents of the next 120 ms from the context before them (van den Oord et al., 2018, section 3.1).

    Convolutions make a latent z every 10 ms, a GRU the context c of all latents so far. W_k c_t predicts z_{t+k}, which
    has to be found among other latents (InfoNCE); the contexts are kept. Chance is ln of the number of candidates.

    Counter-measures: negatives of the same recording by default, because silence, noise and the channel tell recordings
    apart; channels are normalized step by step, because BatchNorm lets latents know of each other.

    Batch: `x` (B, N) float, `noise` (B,) int64.
    Published: LibriSpeech 100 h, linear on c: phones 64.6%, speakers 97.4%; with negatives of the same recording alone
    65.2% of the phones.
    Deviations: with `negatives="own"` all other latents of the window are negatives, not a sample; with "batch" the
    predictions of a recording share theirs. The encoder is narrower; scores are divided by the root of its width.

    Args:
        prediction_steps: Steps of 10 ms to the farthest latent that is predicted (largest k), in [1, inf).
        negatives: `own`, other latents of the same window; or `batch`, latents of any recording of the batch.
        num_negatives: How many of the batch, in [1, inf).
    """

    paper = "van den Oord et al., 2018"
    section = "audio"
    kind = "audio"
    default_encoder = small_encoder = "conv-gru"
    defaults = {"batch_size": 32, "lr": 1e-3}  # noqa: RUF012
    data_defaults = {"form": "wave", "seconds": 1.28}  # noqa: RUF012
    counters = {cue: {"negatives": "own"} for cue in ("length", "floor", "channel", "level", "ends")}  # noqa: RUF012

    def __init__(
        self,
        encoder: Encoder,
        *,
        prediction_steps: int = 12,
        negatives: Literal["own", "batch"] = "own",
        num_negatives: int = 128,
    ) -> None:
        super().__init__(encoder)
        if not hasattr(encoder, "latents"):
            raise UserError("cpc_audio predicts latents, which conv-gru has: give --encoder conv-gru")
        steps = self.encoder.spec.length // self.encoder.stride
        if steps <= prediction_steps:
            raise UserError(
                f"a window of {encoder.spec.seconds:g} s has {steps} steps, too few to predict {prediction_steps}: "
                "give more --seconds or fewer --prediction-steps"
            )
        self.prediction_steps, self.negatives, self.num_negatives = prediction_steps, negatives, num_negatives
        self.predict = nn.Linear(encoder.dim, prediction_steps * encoder.dim, bias=False)

    def views(self, spec: WaveSpec) -> AudioViews:
        """Return a window from anywhere in the recording."""
        return AudioViews(spec, {"x": Window()}, noise=True)

    def loss(self, batch: Batch) -> Loss:
        """Return InfoNCE, the mean over recordings, contexts and steps."""
        logits, target = self._compared(batch)
        right = logits.argmax(-1) == target
        value = nn.functional.cross_entropy(logits.flatten(0, 2), target.flatten())
        metrics = {
            "accuracy": accuracy(logits.flatten(0, 2), target.flatten()),
            "farthest": right[:, :, -1].float().mean(),
        }
        return Loss(value, metrics, math.log(logits.shape[-1]))

    def _compared(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return logits (B, T - K, K, candidates), and which candidate is right (B, T - K, K)."""
        z = full(self.encoder.latents(batch["x"]))
        c, reach = full(self.encoder.gru(z)[0]), self.prediction_steps
        guess = self.predict(c[:, :-reach]).unflatten(2, (reach, -1)) / math.sqrt(z.shape[2])  # (B, T - K, K, D)
        first = torch.arange(guess.shape[1], device=z.device)
        later = (first[:, None] + torch.arange(1, reach + 1, device=z.device)).expand(len(z), -1, -1)  # t + k
        if self.negatives == "own":
            return torch.einsum("btkd,bnd->btkn", guess, z), later
        every = gather(z).flatten(0, 1)
        other = noise.integers(batch["noise"], len(every), self.num_negatives)  # (B, M)
        far = torch.einsum("btkd,bmd->btkm", guess, every[other])
        near = (guess * z[torch.arange(len(z), device=z.device)[:, None, None], later]).sum(-1, keepdim=True)
        return torch.cat([near, far], -1), torch.zeros_like(later)

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the window of each recording; with `guess` how often the nearest and the farthest step are found."""
        rows = [[Panel(x, f"window {place}")] for place, x in enumerate(batch["x"])]
        if guess:
            logits, target = self._compared(batch)
            right = (logits.argmax(-1) == target).float().mean(1)
            for place, row in enumerate(rows):
                told = f"10 ms ahead found in {right[place, 0]:.0%}, {10 * right.shape[1]} ms in {right[place, -1]:.0%}"
                row[0] = Panel(batch["x"][place], told)
        return rows
