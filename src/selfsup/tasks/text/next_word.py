"""Next word: predict every token from those before it."""

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

    Every token of a piece of a document is predicted from [CLS] and the tokens before it. The loss is in nats a token:
    compare it at an equal tokenizer alone. `bits_per_byte` compares across tokenizers: it counts the bytes of the text
    that a token stands for, on average over the data. `unigram` is the loss of who knows how frequent each token is,
    and nothing else. Chance is ln V.

    Batch: `x` (B, T) int64. Published: character-level Shakespeare, a small model on a CPU, 1.88 nats.

    Deviations: the output is the encoder's token vectors behind one hidden layer; [SEP] is not predicted, for a piece
    ends where there is no more room.
    """

    paper = "Bengio et al., 2003"
    section = "text"
    kind = "text"
    default_encoder = "gpt-tiny"
    small_encoder = "gpt-tiny"

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder)
        if not getattr(encoder, "causal", False):
            raise UserError("next_word needs an encoder that does not see what comes: --encoder gpt-tiny or gpt-mini")
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
        asked = (target != spec.pad) & (target != spec.sep)
        logits, target = self._logits(batch["x"], asked), target[asked]
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
        asked = (batch["x"] != self.encoder.spec.pad).sum(1).sub(2).clamp(1, 24)  # the place of the asked token
        guesses = self._logits(batch["x"]).argmax(2) if guess else None
        rows = []
        for row, (x, place) in enumerate(zip(batch["x"], asked.tolist(), strict=True)):
            caption = f"next: {made.id_to_token(int(x[place]))}"
            if guesses is not None:
                caption += f", guess {made.id_to_token(int(guesses[row, place - 1]))}"
            rows.append([Panel(made.decode(x[:place].tolist(), skip_special_tokens=True) + " …", caption)])
        return rows

    def _logits(self, x: Tensor, asked: Tensor | None = None) -> Tensor:
        """(B, T) -> (B, T - 1, V), or (n, V) of the n places that are asked for."""
        hidden: Tensor = self.encoder.tokens(x)[:, :-1]
        logits: Tensor = self.head(hidden if asked is None else hidden[asked], self.encoder.embedding)
        return logits
