"""BERT (Devlin et al., 2019): predict masked tokens, and whether one sentence follows another."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from selfsup.data.spans import Spans
from selfsup.data.text import pieces, token_counts
from selfsup.errors import UserError
from selfsup.losses import cross_entropy
from selfsup.nn.heads import accuracy
from selfsup.nn.sequence.mlm import MLMHead, mask_tokens, mlm_loss
from selfsup.source import Source
from selfsup.spec import TextSpec, tokenizer
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.text.views import TextViews


class Bert(Task):
    """Predict masked tokens, and whether segment B follows segment A (Devlin et al., 2019, section 3.1).

    Of the masked tokens 80% become [MASK], 10% a random token, and 10% stay. Half of the pieces that contain two
    sentences get a segment B from another document, which also starts after the end of a sentence; a piece of one
    sentence serves the masked tokens alone. Chance is ln V + ln 2, or one of the two if the other loss is turned off;
    training starts lower, because the output's bias starts at the log of the tokens' frequencies.

    Batch: `x` (B, T) int64; `next` (B,) int64: 1 if B follows A, 0 if not, -1 for a piece of one sentence; `noise` (B,)
    int64, from which the masked tokens and their replacements are drawn.
    Published: GLUE, BERT-Tiny/Mini/Small 64.2/65.8/71.2 (Turc et al., 2019).

    Deviations: the bias starts at 0 in the paper; each token is masked independently, not exactly 15% of a piece;
    whether B follows is predicted from the representation, which is the mean over the tokens unless the encoder is told
    to use the first.

    Args:
        mask_ratio: Probability of masking a token; 0 leaves this loss out, in [0, 1).
        whole_words: Mask all tokens of a word together.
        next_sentence: Predict whether B follows A.
        short_ratio: Fraction of the pieces that are cut to a random length (appendix A.2), in [0, 1].
    """

    paper = "Devlin et al., 2019"
    section = "text"
    kind = "text"
    default_encoder = "bert-tiny"
    small_encoder = "bert-tiny"

    continues: Tensor  # (V,), whether a token continues a word

    def __init__(
        self,
        encoder: Encoder,
        *,
        mask_ratio: float = 0.15,
        whole_words: bool = False,
        next_sentence: bool = True,
        short_ratio: float = 0.1,
    ) -> None:
        super().__init__(encoder)
        if getattr(encoder, "causal", True):
            raise UserError("bert needs a bidirectional text encoder: --encoder bert-tiny, bert-mini or bert-small")
        if not mask_ratio and not next_sentence:
            raise UserError("bert has nothing to predict: give a --mask-ratio above 0 or drop --no-next-sentence")
        self.mask_ratio, self.whole_words = mask_ratio, whole_words
        self.next_sentence, self.short_ratio = next_sentence, short_ratio
        if mask_ratio:
            self.mlm_head = MLMHead(encoder)
        if next_sentence:
            self.nsp_head = nn.Linear(encoder.dim, 2)
            nn.init.normal_(self.nsp_head.weight, std=0.02)
        continues = tokenizer.tables(encoder.spec.tokenizer)[1]
        self.register_buffer("continues", torch.from_numpy(continues), persistent=False)

    def samples(self, source: Source) -> Spans:
        """Return the pieces of the documents, of which two are needed to predict the next sentence; count tokens."""
        found = pieces(source, self.encoder.spec)
        if self.next_sentence and len(np.unique(found.owners)) < 2:
            raise UserError(
                f"{source.name} is one document; next-sentence prediction needs two: give --no-next-sentence"
            )
        if self.mask_ratio:
            self.mlm_head.start_at(torch.from_numpy(token_counts(found, self.encoder.spec.vocabulary)))
        return found

    def views(self, spec: TextSpec) -> TextViews:
        """Return pairs of segments."""
        return TextViews(spec, "pairs", swap=0.5 if self.next_sentence else 0.0, short=self.short_ratio, noise=True)

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy of the masked tokens plus that of the next sentence."""
        x, masked = self._mask(batch)
        states = self.encoder.tokens(x)
        value, chance = states.new_zeros(()), 0.0
        metrics: dict[str, Tensor] = {}
        if self.mask_ratio:
            mlm, metrics = mlm_loss(self.mlm_head, self.encoder, states, batch["x"], masked)
            value, chance = value + mlm, chance + math.log(self.encoder.spec.vocabulary)
        if self.next_sentence:
            paired = batch["next"] >= 0
            logits, target = self.nsp_head(self.encoder.pool(x, states))[paired], batch["next"][paired]
            nsp = cross_entropy(logits, target)
            value, chance = value + nsp, chance + math.log(2)
            metrics |= {"next_loss": nsp.detach(), "next_accuracy": accuracy(logits, target)}
            metrics["alone"] = (~paired).float().mean()
        return Loss(value, metrics, chance)

    def _mask(self, batch: Batch) -> tuple[Tensor, Tensor]:
        continues = self.continues if self.whole_words else None
        return mask_tokens(batch["x"], batch["noise"], self.mask_ratio, self.encoder.spec, continues)

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the segments with masked tokens; the tokens, and whether B follows."""
        digest: str = self.encoder.spec.tokenizer
        token = tokenizer.tokenizer(digest).id_to_token
        x, masked = self._mask(batch)
        states = self.encoder.tokens(x)
        guesses = self.mlm_head(states, self.encoder.embedding).argmax(2) if guess and self.mask_ratio else None
        follows = self.nsp_head(self.encoder.pool(x, states)).argmax(1) if guess and self.next_sentence else None
        rows = []
        for row, truth in enumerate(batch["x"]):
            places = masked[row].nonzero()[:, 0].tolist()
            words = [token(int(truth[place])) for place in places]
            if guesses is not None:
                words = [f"{w} (guess {token(int(guesses[row, at]))})" for w, at in zip(words, places, strict=True)]
            caption = ["masked: " + (", ".join(words) or "none")]
            caption += [_FOLLOWS[int(batch["next"][row])]] if self.next_sentence else []
            caption += [f"guess: {_FOLLOWS[int(follows[row])]}"] if follows is not None else []
            rows.append([Panel(tokenizer.seen(digest, x[row]), "; ".join(caption))])
        return rows


_FOLLOWS = {1: "B follows A", 0: "B is from elsewhere", -1: "one sentence alone"}
