"""DeCLUTR (Giorgi et al., 2021): find the span that comes from the same document."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from selfsup.base.distributed import gather
from selfsup.errors import UserError
from selfsup.losses import info_nce, unit
from selfsup.nn.heads import accuracy
from selfsup.nn.sequence.mlm import MLMHead, mask_tokens, mlm_loss
from selfsup.spec import TextSpec, tokenizer
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.text.views import TextViews


class DeCLUTR(Task):
    """Find the span near the anchor of each document among those of the batch (Giorgi et al., 2021, section 3).

    Anchors are long (Beta(4, 2) between 1/16 of the encoder's length and all of it), positives short (Beta(2, 4)) and
    adjacent to the anchor, across its edge or inside it (3.1). There is no projection head. The loss of `bert`'s masked
    tokens in the anchors is added (section 3.3). Suits tasks that tell documents apart by their topic. Chance is ln B,
    plus ln V with masked tokens.

    Batch: `x` (B, T) int64, the anchors; `positive` (B, T'); `noise` (B,) int64, from which masked tokens are drawn.
    Published: SentEval, DistilRoBERTa, 77.41 on average, 72.58 before it.

    Deviations: one anchor and one positive of each document, not two of each, and so no other span of the same
    document is among the negatives; documents may be as short as one span, in which case the two overlap.

    Args:
        temperature: Divides the cosine similarities, in (0, inf).
        mask_ratio: Probability of masking a token of an anchor; 0 leaves this loss out, in [0, 1).
    """

    paper = "Giorgi et al., 2021"
    section = "text"
    kind = "text"
    default_encoder = "bert-tiny"
    small_encoder = "bert-tiny"

    def __init__(self, encoder: Encoder, *, temperature: float = 0.05, mask_ratio: float = 0.15) -> None:
        super().__init__(encoder)
        if mask_ratio and getattr(encoder, "causal", True):
            raise UserError("masked tokens need a bidirectional encoder: --encoder bert-tiny, or --mask-ratio 0")
        self.temperature, self.mask_ratio = temperature, mask_ratio
        if mask_ratio:
            self.mlm_head = MLMHead(encoder)

    def views(self, spec: TextSpec) -> TextViews:
        """Return an anchor and a positive of each document."""
        return TextViews(spec, "spans", noise=True)

    def loss(self, batch: Batch) -> Loss:
        """Return InfoNCE of the spans plus the cross-entropy of the masked tokens."""
        spec: TextSpec = self.encoder.spec
        x, masked = mask_tokens(batch["x"], batch["noise"], self.mask_ratio, spec)
        states = self.encoder.tokens(x)
        anchor = gather(unit(self.encoder.pool(x, states)))
        positive = gather(unit(self.encoder(batch["positive"])))
        contrastive = info_nce(anchor, positive, self.temperature)
        logits = anchor @ positive.T
        chance = math.log(len(logits))
        metrics = {
            "span_loss": contrastive.detach(),
            "accuracy": accuracy(logits, torch.arange(len(logits), device=logits.device)),
        }
        if not self.mask_ratio:
            return Loss(contrastive, metrics, chance)
        mlm, mlm_metrics = mlm_loss(self.mlm_head, self.encoder, states, batch["x"], masked)
        return Loss(contrastive + mlm, metrics | mlm_metrics, chance + math.log(spec.vocabulary))

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return each anchor and its positive, with `guess` also the nearest span."""
        made = tokenizer.tokenizer(self.encoder.spec.tokenizer)
        texts = [made.decode_batch(batch[key].tolist(), skip_special_tokens=True) for key in ("x", "positive")]
        captions = [f"belongs to span {row}" for row in range(len(texts[0]))]
        if guess:
            cosine = unit(self.encoder(batch["x"])) @ unit(self.encoder(batch["positive"])).T
            captions = [f"{own}; guess: span {place}" for own, place in zip(captions, cosine.argmax(1), strict=True)]
        return [
            [Panel(anchor, caption), Panel(positive, f"span {row}")]
            for row, (anchor, positive, caption) in enumerate(zip(*texts, captions, strict=True))
        ]
