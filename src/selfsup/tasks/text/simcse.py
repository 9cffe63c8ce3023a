"""SimCSE (Gao et al., 2021): find a sentence again under another dropout mask."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from selfsup.base.distributed import gather
from selfsup.data.spans import Spans
from selfsup.data.text import pieces
from selfsup.errors import UserError
from selfsup.losses import info_nce, unit
from selfsup.nn.heads import accuracy
from selfsup.source import Source
from selfsup.spec import TextSpec, tokenizer
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.text.views import TextViews


class SimCSE(Task):
    """Find a sentence, encoded under two dropout masks, among those of the batch (Gao et al., 2021, equation 4).

    The head, a linear layer and tanh, is used only in training (section 3.1). A sentence is represented as the encoder
    does it: by the mean over its tokens, or by the first one, as in the paper, with an encoder NAME:cls. Chance is
    ln B, but an untrained encoder starts far below it, because dropout changes little.

    Batch: `x` (B, T) int64. Published: seven STS tasks, BERT-base, Spearman 76.25 on average.

    Deviations: a sentence ends at a token . ! or ?; those of fewer than four tokens are left out. The paper starts from
    BERT: pretrain with `bert` first and continue its encoder with --init RUN.

    Args:
        temperature: Divides the cosine similarities, in (0, inf).
        pieces: Use passages up to the encoder's length, not sentences; better for telling whole documents apart.
    """

    paper = "Gao et al., 2021"
    section = "text"
    kind = "text"
    default_encoder = "bert-tiny"
    small_encoder = "bert-tiny"
    wide_lr = 6e-5  # 3e-5 for 128 samples (appendix A)

    def __init__(self, encoder: Encoder, *, temperature: float = 0.05, pieces: bool = False) -> None:
        super().__init__(encoder)
        if not varies(encoder):
            raise UserError(
                "simcse needs an encoder with dropout, by which two encodings of a sentence differ, and this one has "
                "none: give another --encoder, such as bert-tiny"
            )
        self.temperature, self.pieces = temperature, pieces
        self.head = nn.Sequential(nn.Linear(encoder.dim, encoder.dim), nn.Tanh())

    def samples(self, source: Source) -> Spans:
        """Return the sentences of the documents, or their pieces."""
        return pieces(source, self.encoder.spec, sentences=not self.pieces, min_length=4)

    def views(self, spec: TextSpec) -> TextViews:
        """Return the sentences."""
        return TextViews(spec, "one")

    def loss(self, batch: Batch) -> Loss:
        """Return InfoNCE of the two encodings."""
        first, second = gather(self._encode(batch["x"])), gather(self._encode(batch["x"]))
        logits = first @ second.T
        return Loss(
            info_nce(first, second, self.temperature),
            {
                "accuracy": accuracy(logits, torch.arange(len(logits), device=logits.device)),
                "cosine": logits.diagonal().mean().detach(),
            },
            math.log(len(logits)),
        )

    def _encode(self, x: Tensor) -> Tensor:
        return unit(self.head(self.encoder(x)))

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return each sentence, and with `guess` the nearest other one."""
        made = tokenizer.tokenizer(self.encoder.spec.tokenizer)
        texts = made.decode_batch(batch["x"].tolist(), skip_special_tokens=True)
        captions = [f"sentence {row}: find it among {len(texts)}" for row in range(len(texts))]
        if guess and len(texts) > 1:
            z = self._encode(batch["x"])
            cosine, place = (z @ z.T).fill_diagonal_(-2).max(1)
            pairs = zip(captions, place.tolist(), cosine.tolist(), strict=True)
            captions = [f"{caption}; nearest: sentence {other}, cosine {value:.2f}" for caption, other, value in pairs]
        return [[Panel(text, caption)] for text, caption in zip(texts, captions, strict=True)]


@torch.no_grad()
def varies(encoder: Any) -> bool:
    """Return whether the encoder, in training, encodes the same text differently each time."""
    x = encoder.spec.example(1)
    if next(encoder.parameters()).is_meta:
        return True
    trains = encoder.training
    with torch.random.fork_rng(devices=[]):
        first, second = encoder.train()(x), encoder(x)
    encoder.train(trains)
    return not torch.equal(first, second)
