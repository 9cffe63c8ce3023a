"""The baseline that every pretext task has to beat: the same encoder trained on the labels alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from selfsup.errors import UserError
from selfsup.nn.heads import classified
from selfsup.source import Source
from selfsup.task import Batch, Encoder, Loss, Panel, Task, Views
from selfsup.views import standard_views


class Supervised(Task):
    """Cross-entropy on the labels, with the same training loop and views as `rotation`. Chance is ln `num_classes`.

    Batch: `x` (B, C, H, W) float; `y` (B,) int64 in 0..num_classes-1.

    Args:
        num_classes: Number of classes; by default as many as the labels name, in [2, inf).
        pad: Largest shift of the image in pixels, over black, in [0, inf).
        flip: Probability of mirroring the image, in [0, 1].
    """

    section = "baselines"
    kind = "any"
    needs_labels = True
    encoders = {"text": "bert-tiny"}  # noqa: RUF012

    def __init__(self, encoder: Encoder, *, num_classes: int, pad: int = 4, flip: float = 0.5) -> None:
        super().__init__(encoder)
        self.pad, self.flip = pad, flip
        self.head = nn.Linear(encoder.dim, num_classes)

    @classmethod
    def resolve(cls, source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
        """Take the number of classes from the labels."""
        return count_classes(source, given)

    def views(self, spec: Any) -> Views:
        """Return the samples (images shifted and flipped) and their labels."""
        return standard_views(spec).labelled(spec, self.pad, self.flip)

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy of the labels."""
        return classified(self.head(self.encoder(batch["x"])), batch["y"])

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return each image with its class, with `guess` also the predicted one."""
        captions = [f"class {y}" for y in batch["y"].tolist()]
        if guess:
            guesses = self.head(self.encoder(batch["x"])).argmax(1).tolist()
            captions = [f"{caption}, guess {y}" for caption, y in zip(captions, guesses, strict=True)]
        return [[Panel(x, caption)] for x, caption in zip(batch["x"], captions, strict=True)]


def count_classes(source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the number of classes that the labels name; raise `UserError` if fewer were given."""
    assert source.labels is not None
    count = len(source.labels.classes)
    if given.get("num_classes", count) < count:
        raise UserError(f"--num-classes {given['num_classes']} is less than the {count} that the labels name")
    return {"num_classes": count}
