"""BERT (Devlin et al., 2019): predict hidden words, and whether one sentence follows another."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.data import Pieces, Texts, TextSpec, tokens
from selfsup.errors import UserError
from selfsup.nn import accuracy
from selfsup.nn.words import WordHead
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.text import TextViews


class Bert(Task):
    """Predict hidden words, and whether segment B goes on after segment A (Devlin et al., 2019, section 3.1).

    A share `hidden` of the tokens is asked for: 80% of them become [MASK], 10% another token, 10% stay. With
    `whole_words` all tokens of a word are hidden together. Half of the pieces that hold two sentences get a B out of
    another document, which begins after a sentence too; a piece of one sentence stands alone and is used for its words.
    A share `short` of the pieces is shorter (appendix A.2). Chance is ln V + ln 2, or one of them with the other task
    switched off (`hidden` 0, or no `next_sentence`).

    Batch: `x` (B, T) int64; `next` (B,) int64: 1, 0, or -1 for a piece that stands alone; `draws` (B, 3, T) float in
    [0, 1), from (seed, epoch, index): which tokens are hidden, how, and by what.
    Published: GLUE, BERT-Tiny/Mini/Small 64.2/65.8/71.2 (Turc et al., 2019).

    Deviations: each token is hidden by itself, not exactly 15% of a piece; whether B follows is read off the mean of
    the tokens where the encoder's representation is that, not off the first token.
    """

    paper = "Devlin et al., 2019"
    section = "text"
    modality = "text"
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
            self.words = WordHead(encoder)
        if next_sentence:
            self.follows = nn.Linear(encoder.dim, 2)
            nn.init.normal_(self.follows.weight, std=0.02)
        on = tokens.tables(encoder.spec.tokenizer)[1]
        self.register_buffer("goes_on", torch.from_numpy(on), persistent=False)

    def samples(self, source: Texts) -> Pieces:
        """Return the pieces of the documents; next sentences need two documents."""
        pieces = Pieces(source, self.encoder.spec)
        if self.next_sentence and len(np.unique(pieces.document)) < 2:
            raise UserError(f"{source.name} is one document: no other one to take a sentence from; --no-next-sentence")
        return pieces

    def views(self, spec: TextSpec) -> TextViews:
        """Return pairs of segments and the draws."""
        return TextViews(spec, "pairs", swap=0.5 if self.next_sentence else 0.0, short=self.short, noise=True)

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy of the hidden tokens plus that of what follows."""
        x, asked = self._hide(batch)
        states = self.encoder.tokens(x)
        value, chance = states.sum() * 0, 0.0
        metrics: dict[str, Tensor] = {}
        if self.hidden:
            logits, target = self.words(states[asked], self.encoder.embedding), batch["x"][asked]
            word = F.cross_entropy(logits, target, reduction="sum") / max(len(target), 1)
            value, chance = value + word, chance + math.log(self.encoder.spec.vocabulary)
            metrics |= {"word_loss": word.detach(), "word_accuracy": _share(logits, target)}
        if self.next_sentence:
            paired = batch["next"] >= 0
            logits, target = self._follows(x, states)[paired], batch["next"][paired]
            follows = F.cross_entropy(logits, target, reduction="sum") / max(len(target), 1)
            value, chance = value + follows, chance + math.log(2)
            metrics |= {"next_loss": follows.detach(), "next_accuracy": _share(logits, target)}
            metrics["alone"] = (~paired).float().mean()
        return Loss(value, metrics, chance)

    def _hide(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the ids with some hidden, and where (B, T) they are asked for."""
        spec: TextSpec = self.encoder.spec
        x, (which, how, other) = batch["x"], batch["draws"].unbind(1)
        if self.whole_words:  # all tokens of a word share the draw of its first
            begins = ~self.goes_on[x]
            first = torch.arange(x.shape[1], device=x.device).mul(begins).cummax(1).values
            which, how = which.gather(1, first), how.gather(1, first)
        frame = (x == spec.pad) | (x == spec.cls) | (x == spec.sep)
        asked = (which < self.hidden) & ~frame
        changed = torch.where(how < 0.8, spec.mask, torch.where(how < 0.9, (other * spec.vocabulary).long(), x))
        return torch.where(asked, changed, x), asked

    def _follows(self, x: Tensor, states: Tensor) -> Tensor:
        there = (x != self.encoder.spec.pad).unsqueeze(2)
        mean = (states * there).sum(1) / there.sum(1)
        logits: Tensor = self.follows(states[:, 0] if self.encoder.pooling == "cls" else mean)
        return logits

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the segments with hidden words; the words, and whether B follows."""
        made = tokens.tokenizer(self.encoder.spec.tokenizer)
        x, asked = self._hide(batch)
        states = self.encoder.tokens(x)
        words = self.words(states, self.encoder.embedding).argmax(2) if guess and self.hidden else None
        follows = self._follows(x, states).argmax(1).tolist() if guess and self.next_sentence else None
        rows = []
        for row, ids in enumerate(x):
            kept = ids[ids != self.encoder.spec.pad].tolist()
            hidden = asked[row].nonzero()[:, 0].tolist()
            told = [made.id_to_token(int(batch["x"][row, place])) for place in hidden]
            if words is not None:
                pairs = zip(told, hidden, strict=True)
                told = [f"{word} (guess {made.id_to_token(int(words[row, at]))})" for word, at in pairs]
            caption = ["hidden: " + (", ".join(told) or "none")]
            if self.next_sentence:
                caption.append(_FOLLOWS[int(batch["next"][row])])
            if follows is not None:
                caption.append(f"guess: {_FOLLOWS[follows[row]]}")
            rows.append(
                [Panel(" ".join(made.id_to_token(number) for number in kept).replace(" ##", ""), "; ".join(caption))]
            )
        return rows


_FOLLOWS = {1: "B follows A", 0: "B is from elsewhere", -1: "one sentence alone"}


def _share(logits: Tensor, target: Tensor) -> Tensor:
    return accuracy(logits, target) if len(target) else logits.new_zeros(())
