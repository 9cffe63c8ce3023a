"""Next-word prediction (Bengio et al., 2003): predict every token from those before it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from selfsup.data.spans import Spans
from selfsup.data.text import pieces
from selfsup.errors import UserError
from selfsup.losses import cross_entropy
from selfsup.nn.heads import accuracy
from selfsup.nn.sequence.mlm import MLMHead
from selfsup.source import Source
from selfsup.spec import TextSpec, tokenizer
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.text.views import TextViews


class NextWord(Task):
    """Predict the next token with a causal encoder (Bengio et al., 2003; Radford et al., 2018, equation 1).

    Every token of a piece of a document is predicted from [CLS] and the tokens before it. The loss is in nats per
    token, which only compares runs with the same tokenizer; `bits_per_byte` compares across tokenizers, by the bytes
    of text that a token stands for on average. `unigram` is the loss of knowing nothing but each token's frequency.
    Chance is ln V.

    Batch: `x` (B, T) int64. Published: character-level Shakespeare, a small model on a CPU, 1.88 nats.

    Deviations: the output is the encoder's token embeddings after one hidden layer; [SEP] is not predicted, because a
    piece ends where the length runs out.
    """

    paper = "Bengio et al., 2003"
    section = "text"
    kind = "text"
    default_encoder = "gpt-tiny"
    small_encoder = "gpt-tiny"

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder)
        if not getattr(encoder, "causal", False):
            raise UserError("next_word needs a causal encoder: --encoder gpt-tiny or gpt-mini")
        self.head = MLMHead(encoder)

    def samples(self, source: Source) -> Spans:
        """Return the pieces of the documents."""
        return pieces(source, self.encoder.spec)

    def views(self, spec: TextSpec) -> TextViews:
        """Return the pieces."""
        return TextViews(spec, "one")

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy of every token given those before it."""
        spec: TextSpec = self.encoder.spec
        target = batch["x"][:, 1:]
        predicted = (target != spec.pad) & (target != spec.sep)
        logits, target = self._logits(batch["x"], predicted), target[predicted]
        value = cross_entropy(logits, target)
        metrics = {
            "accuracy": accuracy(logits, target),
            "bits_per_byte": value.detach() / math.log(2) / spec.bytes_per_token,
            "unigram": value.new_full((), spec.entropy),
        }
        return Loss(value, metrics, math.log(spec.vocabulary))

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the beginning of each piece, and the word that comes next."""
        made = tokenizer.tokenizer(self.encoder.spec.tokenizer)
        target = (batch["x"] != self.encoder.spec.pad).sum(1).sub(2).clamp(1, 24)  # the place of the token to predict
        guesses = self._logits(batch["x"]).argmax(2) if guess else None
        rows = []
        for row, (x, place) in enumerate(zip(batch["x"], target.tolist(), strict=True)):
            caption = f"next: {made.id_to_token(int(x[place]))}"
            if guesses is not None:
                caption += f", guess {made.id_to_token(int(guesses[row, place - 1]))}"
            rows.append([Panel(made.decode(x[:place].tolist(), skip_special_tokens=True) + " …", caption)])
        return rows

    def _logits(self, x: Tensor, predicted: Tensor | None = None) -> Tensor:
        """(B, T) -> (B, T - 1, V), or (n, V) of the n `predicted` (B, T - 1) places."""
        states = self.encoder.tokens(x)[:, :-1]
        return self.head(states if predicted is None else states[predicted], self.encoder.embedding)
