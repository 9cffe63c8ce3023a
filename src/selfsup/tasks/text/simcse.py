"""SimCSE (Gao et al., 2021): a sentence is itself under another dropout, and no other one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from selfsup.data.spans import Spans
from selfsup.data.text import pieces
from selfsup.errors import UserError
from selfsup.losses import info_nce, unit
from selfsup.nn.distributed import gather
from selfsup.nn.heads import accuracy
from selfsup.source import Source
from selfsup.spec import TextSpec, tokenizer
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.text.views import TextViews


class SimCSE(Task):
    """Find a sentence, encoded twice under two dropouts, among those of the batch (Gao et al., 2021, equation 4).

    The cosines are divided by `temperature`; the head, a linear layer and tanh, serves the training alone (section
    3.1). `pieces` takes stretches of whole documents, up to the encoder's length, in place of sentences: better where
    documents are what is told apart. Chance is ln B, but an untrained encoder is far below: dropout changes little.

    Batch: `x` (B, T) int64. Published: seven STS tasks, BERT-base, Spearman 76.25 on average.

    Deviations: sentences are told by the tokens . ! ? that end them; those of fewer than four tokens are left out.
    `bert` comes first: continue its encoder with --init RUN, as the paper starts from BERT.
    """

    paper = "Gao et al., 2021"
    section = "text"
    kind = "text"
    default_encoder = "bert-tiny"
    small_encoder = "bert-tiny"

    def __init__(self, encoder: Encoder, *, temperature: float = 0.05, pieces: bool = False) -> None:
        super().__init__(encoder)
        if not 0 < temperature < math.inf:
            raise UserError(f"--temperature must be above 0, not {temperature}")
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
                "ln_batch": logits.new_full((), math.log(len(logits))),
            },
        )

    def _encode(self, x: Tensor) -> Tensor:
        return unit(self.head(self.encoder(x)))

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return each sentence, and with `guess` the nearest other one."""
        made = tokenizer.tokenizer(self.encoder.spec.tokenizer)
        texts = made.decode_batch(batch["x"].tolist(), skip_special_tokens=True)
        captions = [f"is itself, and none of the {len(texts) - 1} others (sentence {row})" for row in range(len(texts))]
        if guess and len(texts) > 1:
            near = self._encode(batch["x"])
            cosine, place = (near @ near.T).fill_diagonal_(-2).max(1)
            pairs = zip(captions, place.tolist(), cosine.tolist(), strict=True)
            captions = [f"{caption}; nearest: sentence {other}, cosine {value:.2f}" for caption, other, value in pairs]
        return [[Panel(text, caption)] for text, caption in zip(texts, captions, strict=True)]
