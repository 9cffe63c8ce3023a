"""DeCLUTR (Giorgi et al., 2021): two stretches of one document belong together, those of others do not."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from selfsup.errors import UserError
from selfsup.losses import info_nce, unit
from selfsup.nn.distributed import gather
from selfsup.nn.heads import accuracy
from selfsup.nn.sequence.mlm import MLMHead, mask_tokens, mlm_loss
from selfsup.spec import TextSpec, tokenizer
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.text.views import TextViews


class DeCLUTR(Task):
    """Find the span near the anchor of each document among those of the batch (Giorgi et al., 2021, section 3).

    Anchors are long (Beta(4, 2) between 1/16 of the encoder's length and all of it), positives short (Beta(2, 4)) and
    adjacent to the anchor, over its edge or inside it (3.1). Cosines are divided by `temperature`; there is no head.
    Of the anchors' tokens a share `hidden` is asked for as in `bert`, whose loss is added (section 3.3); 0 leaves it
    out. Take it where what is told apart is what documents are about. Chance is ln B, and ln V with hidden words.

    Batch: `x` (B, T) int64, the anchors; `positive` (B, T'); `noise` (B,) int64: what is hidden, and by what.
    Published: SentEval, DistilRoBERTa, 77.41 on average, 72.58 before it.

    Deviations: one anchor and one positive of each document, of two and two there, and so no other span of the same
    document among the negatives; documents may be as short as one span, where both overlap.
    """

    paper = "Giorgi et al., 2021"
    section = "text"
    kind = "text"
    default_encoder = "bert-tiny"
    small_encoder = "bert-tiny"

    def __init__(self, encoder: Encoder, *, temperature: float = 0.05, hidden: float = 0.15) -> None:
        super().__init__(encoder)
        if not 0 < temperature < math.inf:
            raise UserError(f"--temperature must be above 0, not {temperature}")
        if not 0 <= hidden < 1:
            raise UserError("--hidden must be at least 0 and less than 1")
        if hidden and getattr(encoder, "causal", True):
            raise UserError("hidden words need an encoder that sees both sides: --encoder bert-tiny, or --hidden 0")
        self.temperature, self.hidden = temperature, hidden
        if hidden:
            self.words = MLMHead(encoder)

    def views(self, spec: TextSpec) -> TextViews:
        """Return an anchor and a positive of each document."""
        return TextViews(spec, "spans", noise=True)

    def loss(self, batch: Batch) -> Loss:
        """Return InfoNCE of the spans plus the cross-entropy of the hidden tokens."""
        spec: TextSpec = self.encoder.spec
        x, asked = mask_tokens(batch["x"], batch["noise"], self.hidden, spec)
        states = self.encoder.tokens(x)
        anchor = gather(unit(self.encoder.pool(x, states)))
        positive = gather(unit(self.encoder(batch["positive"])))
        found = info_nce(anchor, positive, self.temperature)
        logits = anchor @ positive.T
        chance = math.log(len(logits))
        metrics = {
            "span_loss": found.detach(),
            "accuracy": accuracy(logits, torch.arange(len(logits), device=logits.device)),
        }
        if not self.hidden:
            return Loss(found, metrics, chance)
        word, told = mlm_loss(self.words, self.encoder, states, batch["x"], asked)
        return Loss(found + word, metrics | told, chance + math.log(spec.vocabulary))

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return each anchor and its positive, and with `guess` which one is found."""
        made = tokenizer.tokenizer(self.encoder.spec.tokenizer)
        texts = [made.decode_batch(batch[key].tolist(), skip_special_tokens=True) for key in ("x", "positive")]
        captions = [f"belongs to span {row}" for row in range(len(texts[0]))]
        if guess:
            cosine = unit(self.encoder(batch["x"])) @ unit(self.encoder(batch["positive"])).T
            captions = [f"{told}; guess: span {place}" for told, place in zip(captions, cosine.argmax(1), strict=True)]
        return [
            [Panel(anchor, told), Panel(positive, f"span {row}")]
            for row, (anchor, positive, told) in enumerate(zip(*texts, captions, strict=True))
        ]
