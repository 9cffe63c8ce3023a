"""HuBERT (Hsu et al., 2021): predict the cluster of the sound at masked steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.losses import full, product, unit
from selfsup.nn.audio.spans import SpanMask, penalty, silenced
from selfsup.nn.heads import accuracy
from selfsup.source import Source
from selfsup.spec import WaveSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.tasks.audio.hubert_units import Units
from selfsup.views.audio import AudioViews, Window


class HuBERT(Task):
    """Predict the unit, a k-means cluster of the sound, at each masked step (Hsu et al., 2021, section II).

    The units of the first round are clusters of 39 MFCC. After a fraction `second_round` of the run they are clusters
    of what the encoder's own middle block makes of unmasked sound by then; the encoder itself is trained on. Both
    clusterings are of the middles of up to 256 recordings. A masked step is compared, by its cosine, with a learned
    vector of each unit; 10 times the mean square of the latents is added. Chance is ln of the number of units, for the
    first term (`units_loss`) alone; `majority` is the accuracy of always guessing the batch's most frequent unit.

    Batch: `x` (B, N) float; `noise` (B,) int64, the key of the spans.
    Published: LibriSpeech 960 h, base: word error with 10 h of labels 4.3/9.4%; SUPERB phones 5.41%, speakers 81.42%.
    Deviations: one run instead of two; as many units in both rounds (the paper: 100, then 500); an exact number of
    masked steps; the gradient of the convolutions is not divided by 10 (Adam would not notice); a smaller encoder.

    Args:
        mask_ratio: Fraction of the steps that are masked; about 0.55 in the paper, in (0, 1).
        span: Length of a span in steps of 20 ms, in [1, inf).
        num_units: Clusters, in [2, inf).
        second_round: Fraction of the run after which the units are the encoder's own; 1: never, in (0, 1].
        temperature: Divides the cosine similarities, in (0, inf).
        out_dim: Dimension in which output and units are compared, in [1, inf).
    """

    paper = "Hsu et al., 2021"
    section = "audio"
    kind = "audio"
    default_encoder = small_encoder = "wav2vec2-small"
    defaults = {"batch_size": 16, "lr": 5e-4, "betas": (0.9, 0.98), "warmup": 0.08, "clip": 10.0}  # noqa: RUF012
    data_defaults = {"form": "wave", "seconds": 2.0}  # noqa: RUF012
    coupled = False

    def __init__(
        self,
        encoder: Encoder,
        *,
        mask_ratio: float = 0.55,
        span: int = 10,
        num_units: int = 100,
        second_round: float = 0.5,
        temperature: float = 0.1,
        out_dim: int = 256,
    ) -> None:
        super().__init__(encoder)
        self.second_round, self.temperature = second_round, temperature
        self.mask = SpanMask("hubert", encoder, mask_ratio, span)
        self.guess = nn.Linear(encoder.dim, out_dim)
        # of both rounds; only directions count, and short vectors turn faster
        self.units = nn.Parameter(0.05 * torch.randn(2, num_units, out_dim))
        self.sound = Units(encoder, num_units)

    def samples(self, source: Source) -> Source:
        """Return the same, after the units of the first round were made of it."""
        self.sound.begin(source)
        return source

    def views(self, spec: WaveSpec) -> AudioViews:
        """Return a window from anywhere in the recording."""
        return AudioViews(spec, {"x": Window()}, noise=True)

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy of the units at the masked steps (equation 2), and the penalty."""
        logits, label, size, _ = self._predict(batch)
        logits, label = logits.flatten(0, 1), label.flatten()
        value = F.cross_entropy(logits, label)
        metrics = {
            "units_loss": value.detach(),
            "accuracy": accuracy(logits, label),
            "majority": label.bincount(minlength=logits.shape[1]).max() / len(label),
        }
        return Loss(value + size, metrics, math.log(logits.shape[1]))

    def _predict(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return logits (B, M, units) and units (B, M) of M masked steps, the penalty, and the steps (B, M)."""
        latents, places = full(self.encoder.latents(batch["x"])), self.mask.draw(batch["noise"])
        guess = unit(self.guess(self.mask.contexts(self.encoder, latents, places)))
        logits = product(guess, unit(self.units[int(self.sound.second)]).T) / self.temperature
        return logits, self.sound(batch["x"]).gather(1, places), penalty(latents), places

    def after_step(self) -> None:
        """Begin the second round when it is time."""
        if self.second_round < 1 and self.progress >= self.second_round and not self.sound.second:
            self.sound.begin_again(self.encoder)

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the window and what is left of it, with the first units; with `guess` how often they are found."""
        logits, label, _, places = self._predict(batch)
        right = (logits.argmax(2) == label).float().mean(1)
        rows, heard = [], silenced(batch["x"], places, self.encoder)
        for row, x in enumerate(batch["x"]):
            caption = f"units {', '.join(map(str, label[row, :8].tolist()))} … of {label.shape[1]} masked steps"
            caption += f"; found: {right[row]:.0%}" if guess else ""
            rows.append([Panel(x, "the window"), Panel(heard[row], caption)])
        return rows
