"""DIET (Ibrahim et al., 2024): the number of a sample is its class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from selfsup.base.notes import say
from selfsup.errors import UserError
from selfsup.losses import full, info_nce, product
from selfsup.source import Source
from selfsup.spec import Spec
from selfsup.task import Batch, Encoder, Loss, Panel, Task, Views, one_each
from selfsup.views import single_view

LARGE, MOST = 10**8, 2**30  # weights of the head from which its cost is said, and beyond which it is refused
BYTES = 16  # of a weight, its gradient and AdamW's two moments


class DIET(Task):
    """Tell of which sample a view is, by a linear classifier with one class a sample (Ibrahim et al., 2024, section 3).

    No projector, no pairs, no EMA encoder. Suits up to some hundred thousand samples and small batches, and goes on
    from the weights of a foundation model without new hyper-parameters (DIET-CP: Rodas et al., 2025): `--pretrained`.
    The targets are smoothed: a view's own sample has 1 - `smoothing`, and `smoothing` is shared among all. Chance is
    ln(`num_items`) whatever the smoothing, and the lowest loss is the entropy of the targets: with 0.8 and a thousand,
    a hundred thousand or a million samples it lies 0.9, 1.8 or 2.3 below chance. `index_loss` is the cross-entropy
    without smoothing, which has the same chance.

    The head has `num_items` · dim weights, of 16 bytes each with gradient and AdamW's moments: from 100 million on that
    is said, and beyond 2³⁰ refused. Logits are computed for a few rows at a time.

    Batch: `x` (B, C, H, W) float, or one view of another kind of data; `index` (B,) int64.

    Deviations: SimCLR's views, our learning rates. Texts have windows from anywhere, which are not changed further.

    Args:
        num_items: Classes, one for each sample, in [1, inf).
        smoothing: Fraction of a target that all samples share, in [0, 1).
        min_scale: Smallest area of a crop as a fraction of the image, in (0, 1].
    """

    paper = "Ibrahim et al., 2024"
    section = "images: contrastive"
    also = ("text", "video", "audio", "trajectory")
    encoders = {"text": "bert-tiny"}  # noqa: RUF012
    any_size = True
    keeps_samples = True
    coupled = False

    def __init__(self, encoder: Encoder, *, num_items: int, smoothing: float = 0.8, min_scale: float = 0.2) -> None:
        super().__init__(encoder)
        if num_items * encoder.dim > MOST:
            raise UserError(
                f"diet has {encoder.dim:,} weights for each of {num_items:,} samples, which need "
                f"{num_items * encoder.dim * BYTES / 2**30:,.0f} GiB to be trained: give fewer samples, a narrower "
                "encoder, or --task instance, which stores 128 numbers a sample"
            )
        self.smoothing, self.min_scale = smoothing, min_scale
        self.head = nn.Linear(encoder.dim, num_items, bias=False)

    @classmethod
    def resolve(cls, source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
        """Make one class for each sample."""
        return one_each(source, given, "num_items")

    def samples(self, source: Source) -> Source:
        """Return the same, and say what a large head costs."""
        weights = self.head.weight.numel()
        if weights >= LARGE:
            say(f"diet: {weights:,} weights, one row per sample, need {weights * BYTES / 2**30:.1f} GiB to be trained")
        return source

    def views(self, spec: Spec) -> Views:
        """Return one view with SimCLR's distortion."""
        return single_view(spec, self.min_scale)

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy of each view's own sample, with smoothed targets."""
        z, index, weight = full(self.encoder(batch["x"])), batch["index"], full(self.head.weight)
        nats = info_nce(z, weight, positive=index)
        own, mean = (z * weight[index]).sum(1), product(z, weight.mean(0))
        return Loss(nats + self.smoothing * (own - mean).mean(), {"index_loss": nats.detach()}, math.log(len(weight)))

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the view of each sample with its number, with `guess` also the predicted one."""
        captions = [f"sample {index}" for index in batch["index"].tolist()]
        if guess:
            guesses = product(self.encoder(batch["x"]), self.head.weight.T).argmax(1).tolist()
            captions = [f"{caption}, guess {index}" for caption, index in zip(captions, guesses, strict=True)]
        return [[Panel(x, caption)] for x, caption in zip(batch["x"], captions, strict=True)]
