"""BERT (Devlin et al., 2019): predict hidden words, and whether one sentence follows another."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from selfsup.data.spans import Spans
from selfsup.data.text import pieces
from selfsup.errors import UserError
from selfsup.losses import cross_entropy
from selfsup.nn.heads import accuracy
from selfsup.nn.sequence.mlm import MLMHead, mask_tokens, mlm_loss
from selfsup.source import Source
from selfsup.spec import TextSpec, tokenizer
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.text.views import TextViews


class Bert(Task):
    """Predict hidden words, and whether segment B goes on after segment A (Devlin et al., 2019, section 3.1).

    A share `hidden` of the tokens is asked for: 80% of them become [MASK], 10% another token, 10% stay. With
    `whole_words` all tokens of a word are hidden together. Half of the pieces that hold two sentences get a B out of
    another document, which begins after a sentence too; a piece of one sentence stands alone and is used for its words.
    A share `short` of the pieces is shorter (appendix A.2). Chance is ln V + ln 2, or one of them with the other task
    switched off (`hidden` 0, or no `next_sentence`).

    Batch: `x` (B, T) int64; `next` (B,) int64: 1, 0, or -1 for a piece that stands alone; `noise` (B,) int64: from it
    is drawn which tokens are hidden, how, and by what.
    Published: GLUE, BERT-Tiny/Mini/Small 64.2/65.8/71.2 (Turc et al., 2019).

    Deviations: each token is hidden by itself, not exactly 15% of a piece; whether B follows is read off the
    representation, which is the mean over the tokens unless the encoder is asked for its first.
    """

    paper = "Devlin et al., 2019"
    section = "text"
    kind = "text"
    default_encoder = "bert-tiny"
    small_encoder = "bert-tiny"

    goes_on: Tensor  # (V,), whether a token goes on with the word before it

    def __init__(
        self,
        encoder: Encoder,
        *,
        hidden: float = 0.15,
        whole_words: bool = False,
        next_sentence: bool = True,
        short: float = 0.1,
    ) -> None:
        super().__init__(encoder)
        if getattr(encoder, "causal", True):
            raise UserError("bert needs an encoder of texts that sees both sides: --encoder bert-tiny, mini or small")
        if not 0 <= hidden < 1 or not 0 <= short <= 1:
            raise UserError("--hidden must be at least 0 and less than 1, --short from 0 to 1")
        if not hidden and not next_sentence:
            raise UserError("bert has nothing to predict: give --hidden above 0 or leave --no-next-sentence out")
        self.hidden, self.whole_words, self.next_sentence, self.short = hidden, whole_words, next_sentence, short
        if hidden:
            self.words = MLMHead(encoder)
        if next_sentence:
            self.follows = nn.Linear(encoder.dim, 2)
            nn.init.normal_(self.follows.weight, std=0.02)
        on = tokenizer.tables(encoder.spec.tokenizer)[1]
        self.register_buffer("goes_on", torch.from_numpy(on), persistent=False)

    def samples(self, source: Source) -> Spans:
        """Return the pieces of the documents; next sentences need two documents."""
        found = pieces(source, self.encoder.spec)
        if self.next_sentence and len(np.unique(found.owners)) < 2:
            raise UserError(f"{source.name} is one document: no other one to take a sentence from; --no-next-sentence")
        return found

    def views(self, spec: TextSpec) -> TextViews:
        """Return pairs of segments."""
        return TextViews(spec, "pairs", swap=0.5 if self.next_sentence else 0.0, short=self.short, noise=True)

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy of the hidden tokens plus that of what follows."""
        x, asked = self._hide(batch)
        states = self.encoder.tokens(x)
        value, chance = states.new_zeros(()), 0.0
        metrics: dict[str, Tensor] = {}
        if self.hidden:
            word, told = mlm_loss(self.words, self.encoder, states, batch["x"], asked)
            value, chance, metrics = value + word, chance + math.log(self.encoder.spec.vocabulary), metrics | told
        if self.next_sentence:
            paired = batch["next"] >= 0
            logits, target = self.follows(self.encoder.pool(x, states))[paired], batch["next"][paired]
            follows = cross_entropy(logits, target)
            value, chance = value + follows, chance + math.log(2)
            metrics |= {"next_loss": follows.detach(), "next_accuracy": accuracy(logits, target)}
            metrics["alone"] = (~paired).float().mean()
        return Loss(value, metrics, chance)

    def _hide(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return mask_tokens(
            batch["x"], batch["noise"], self.hidden, self.encoder.spec, self.goes_on if self.whole_words else None
        )

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the segments with hidden words; the words, and whether B follows."""
        digest: str = self.encoder.spec.tokenizer
        word = tokenizer.tokenizer(digest).id_to_token
        x, asked = self._hide(batch)
        states = self.encoder.tokens(x)
        words = self.words(states, self.encoder.embedding).argmax(2) if guess and self.hidden else None
        follows = self.follows(self.encoder.pool(x, states)).argmax(1) if guess and self.next_sentence else None
        rows = []
        for row, truth in enumerate(batch["x"]):
            hidden = asked[row].nonzero()[:, 0].tolist()
            told = [word(int(truth[place])) for place in hidden]
            if words is not None:
                told = [f"{one} (guess {word(int(words[row, at]))})" for one, at in zip(told, hidden, strict=True)]
            caption = ["hidden: " + (", ".join(told) or "none")]
            caption += [_FOLLOWS[int(batch["next"][row])]] if self.next_sentence else []
            caption += [f"guess: {_FOLLOWS[int(follows[row])]}"] if follows is not None else []
            rows.append([Panel(tokenizer.seen(digest, x[row]), "; ".join(caption))])
        return rows


_FOLLOWS = {1: "B follows A", 0: "B is from elsewhere", -1: "one sentence alone"}
