"""wav2vec 2.0 (Baevski et al., 2020): find the code of a masked step of speech among those of other masked steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.losses import full, product, unit
from selfsup.nn import noise
from selfsup.nn.audio.quantizer import Quantizer
from selfsup.nn.audio.spans import SpanMask, penalty, silenced
from selfsup.nn.image.masks import take
from selfsup.spec import WaveSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.audio import AudioViews, Window


class Wav2Vec2(Task):
    """Find the code of each masked step among those of other masked steps (Baevski et al., 2020, section 3).

    Convolutions make a latent every 20 ms. Spans of them are hidden from a transformer, whose output has to resemble
    the code of the hidden latent: one of `num_codes` vectors of each of `num_groups` codebooks, chosen with Gumbel
    noise, whose temperature falls from 2 to 0.5. Two more terms: the diversity of the codes, 0.1 · (1 - perplexity of
    their mean probabilities / number of codes), and 10 times the mean square of the latents. Chance is ln of the number
    of candidates, for the first term (`contrast`) alone.

    Watch `codes`, the perplexity of the codes that are chosen, summed over the codebooks: when it falls to their
    number, all targets are the same, identical ones are no candidates, and `contrast` is 0 at once: a collapse.

    Batch: `x` (B, N) float; `noise` (B,) int64, the key of spans, negatives and Gumbel noise.
    Published: LibriSpeech 960 h, base: word error 3.4/8.5% (10 h of labels: 4.3/9.5%); SUPERB speakers 75.2%.
    Deviations: an exact number of masked steps, not a number of spans; negatives are drawn without repetition; the
    temperature depends on the part of the run that is done; the quantizer normalizes the latents by itself; the
    gradient of the convolutions is not divided by 10 (Adam would not notice); no dropout; a smaller encoder.

    Args:
        mask_ratio: Fraction of the steps that are masked; 0.49 in the paper, in (0, 1).
        span: Length of a span in steps of 20 ms, in [1, inf).
        num_groups: Codebooks, in [1, inf).
        num_codes: Codes of each codebook, in [2, inf).
        num_negatives: At most so many other masked steps are candidates, in [1, inf).
        temperature: Divides the cosine similarities, in (0, inf).
        out_dim: Dimension in which output and code are compared, in [1, inf).
    """

    paper = "Baevski et al., 2020"
    section = "audio"
    kind = "audio"
    default_encoder = small_encoder = "wav2vec2-small"
    defaults = {"batch_size": 16, "lr": 5e-4, "betas": (0.9, 0.98), "warmup": 0.08}  # noqa: RUF012
    data_defaults = {"form": "wave", "seconds": 2.0}  # noqa: RUF012

    def __init__(
        self,
        encoder: Encoder,
        *,
        mask_ratio: float = 0.5,
        span: int = 10,
        num_groups: int = 2,
        num_codes: int = 320,
        num_negatives: int = 100,
        temperature: float = 0.1,
        out_dim: int = 256,
    ) -> None:
        super().__init__(encoder)
        self.num_negatives, self.temperature = num_negatives, temperature
        self.mask = SpanMask("wav2vec2", encoder, mask_ratio, span)
        self.quantizer = Quantizer(self.encoder.latent_dim, num_groups, num_codes, out_dim)
        self.guess = nn.Linear(encoder.dim, out_dim)

    def views(self, spec: WaveSpec) -> AudioViews:
        """Return a window from anywhere in the recording."""
        return AudioViews(spec, {"x": Window()}, noise=True)

    def loss(self, batch: Batch) -> Loss:
        """Return the contrastive loss of the masked steps (equation 3), with diversity and penalty."""
        latents = full(self.encoder.latents(batch["x"]))
        logits, chosen, probabilities, _ = self._compared(latents, batch["noise"])
        target = torch.arange(logits.shape[1], device=logits.device).expand(len(logits), -1)
        contrast, size = F.cross_entropy(logits.flatten(0, 1), target.flatten()), penalty(latents)
        diversity = self.quantizer.perplexity(probabilities) / self.quantizer.count
        metrics = {
            "contrast": contrast.detach(),
            "accuracy": (logits.argmax(2) == target).float().mean(),
            "codes": self.quantizer.perplexity(F.one_hot(chosen, probabilities.shape[3]).float()).detach(),
            "latents": size.detach() / 10,
        }
        value = contrast + 0.1 * (1 - diversity) + size
        return Loss(value, metrics, math.log(1 + min(self.num_negatives, self.mask.count - 1)))

    def _compared(self, latents: Tensor, key: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return logits (B, M, M) of M masked steps and M codes, the quantizer's choice, and the steps (B, M).

        The right code of a step has its number; -inf: not a candidate.
        """
        places = self.mask.draw(key)
        guess = unit(self.guess(self.mask.contexts(self.encoder, latents, places)))
        code, chosen, probabilities = self.quantizer(take(latents, places), key, self.progress)
        logits = product(guess, unit(code).mT) / self.temperature
        own = torch.eye(places.shape[1], dtype=torch.bool, device=places.device)
        order = noise.uniform(key, *logits.shape[1:], stream=1).masked_fill(own, -1).argsort(2).argsort(2)
        same = (chosen[:, :, None] == chosen[:, None]).all(3) & ~own
        return logits.masked_fill((order > self.num_negatives) | same, -torch.inf), chosen, probabilities, places

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the window and what is left of it; with `guess` how often the right code is found."""
        logits, _, _, places = self._compared(full(self.encoder.latents(batch["x"])), batch["noise"])
        right = (logits.argmax(2) == torch.arange(logits.shape[1], device=logits.device)).float().mean(1)
        left = f"{self.mask.count} of {self.mask.steps} steps masked"
        captions = [f"{left}; right code found for {part:.0%}" if guess else left for part in right.tolist()]
        heard = silenced(batch["x"], places, self.encoder)
        return [[Panel(x, "the window"), Panel(h, c)] for x, h, c in zip(batch["x"], heard, captions, strict=True)]
