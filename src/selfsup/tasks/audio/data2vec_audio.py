"""data2vec on speech (Baevski et al., 2022): predict what an EMA of the transformer makes of masked steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.losses import full
from selfsup.nn.audio.spans import SpanMask, silenced
from selfsup.nn.ema import Momentum, ema_update, frozen_copy
from selfsup.nn.image.masks import take
from selfsup.nn.norm import mean_of_layers
from selfsup.spec import WaveSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.audio import AudioViews, Window


class Data2VecAudio(Task):
    """Predict a teacher's mean over its last layers at masked steps of a recording (Baevski et al., 2022, section 3).

    The teacher is an EMA of the transformer alone: it sees all latents that the encoder's convolutions make. The target
    averages the outputs of the MLPs of its last blocks before they are added to the steps, each normalized over the
    window (InstanceNorm). The loss is the mean squared error at masked steps. Chance is `blind`, the variance of the
    target between recordings at the same step: the error of a guess that knows the step alone. Watch it, and
    `guess_std`, the standard deviation of the prediction: the authors stop where one is below 0.1, a collapse.
    `start_left` is the weight of the random start in the teacher. The encoder itself is kept.

    Batch: `x` (B, N) float; `noise` (B,) int64, the key of the spans.
    Published: LibriSpeech 960 h, base: word error 2.8/6.8% (10 h of labels: 3.9/9.1%).
    Deviations: an exact number of masked steps; the encoder of wav2vec 2.0 with its position embedding, smaller; the
    error is averaged over dimensions, not divided by the root of their number.

    Args:
        mask_ratio: Fraction of the steps that are masked; about 0.49 in the paper, in (0, 1).
        span: Length of a span in steps of 20 ms, in [1, inf).
        skip_layers: First blocks of the teacher that the target leaves out; 4 of 12 in the paper, in [0, inf).
        momentum: Momentum of the teacher at the start; it rises linearly to 1. By default from the number of steps:
            0.97 for up to 1,333, 0.99 for 4,000, 0.996 from 10,000 on. In the paper from 0.999 to 0.9999 within the
            first 30,000 of 400,000, in [0, 1].
    """

    paper = "Baevski et al., 2022"
    section = "audio"
    kind = "audio"
    default_encoder = small_encoder = "wav2vec2-small"
    defaults = {"batch_size": 16, "lr": 5e-4, "betas": (0.9, 0.98), "warmup": 0.08}  # noqa: RUF012
    data_defaults = {"form": "wave", "seconds": 2.0}  # noqa: RUF012
    coupled = False

    def __init__(
        self,
        encoder: Encoder,
        *,
        mask_ratio: float = 0.5,
        span: int = 10,
        skip_layers: int = 1,
        momentum: float | None = None,
    ) -> None:
        super().__init__(encoder)
        self.mask, self.momentum = (
            SpanMask("data2vec_audio", encoder, mask_ratio, span),
            Momentum(momentum, linear=True),
        )
        self.last = max(1, self.encoder.depth - skip_layers)
        self.teacher = frozen_copy(self.encoder.transformer)
        self.out = nn.Linear(encoder.dim, encoder.dim)

    def views(self, spec: WaveSpec) -> AudioViews:
        """Return a window from anywhere in the recording."""
        return AudioViews(spec, {"x": Window()}, noise=True)

    def loss(self, batch: Batch) -> Loss:
        """Return the mean squared error at the masked steps."""
        predicted, target, places = self._predict(batch)
        metrics = {
            "blind": target.var(0, unbiased=False).mean(),
            "guess_std": predicted.detach().flatten(0, 1).std(0).mean(),
            **self.momentum.metrics(),
        }
        return Loss(F.mse_loss(predicted, take(target, places)), metrics)

    def _predict(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return the prediction at M masked steps (B, M, dim), the target at all (B, T, dim), and the steps (B, M)."""
        latents, places = self.encoder.latents(batch["x"]), self.mask.draw(batch["noise"])
        with torch.no_grad():
            tokens = self.encoder.tokens(latents)
            target = mean_of_layers(self.encoder.mlp_outputs(tokens, self.last, self.teacher))
        return full(self.out(self.mask.contexts(self.encoder, latents, places))), target, places

    def after_step(self) -> None:
        """Update the teacher."""
        ema_update(self.teacher, self.encoder.transformer, self.momentum.advance(self.progress, self.steps))

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the window and what is left of it; with `guess` the cosine of prediction and target."""
        predicted, target, places = self._predict(batch)
        cosine = F.cosine_similarity(predicted, take(target, places), 2).mean(1)
        left = f"{self.mask.count} of {self.mask.steps} steps masked"
        captions = [f"{left}; cosine {value:.2f}" if guess else left for value in cosine.tolist()]
        heard = silenced(batch["x"], places, self.encoder)
        return [[Panel(x, "the window"), Panel(h, c)] for x, h, c in zip(batch["x"], heard, captions, strict=True)]
