"""S4L (Zhai et al., 2019): learn from a few labels and a pretext task at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import nn

from selfsup.nn.heads import accuracy
from selfsup.source import Source
from selfsup.spec import ImageSpec
from selfsup.spec.image import NATURAL
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.tasks.image.rotation import Rotation, all_rotations
from selfsup.tasks.parts import build_part, check_source, find_part, loss_of_part, lr_of_part, resolve_pretext
from selfsup.tasks.semi.supervised import count_classes
from selfsup.views.image import Crop, ImageViews
from selfsup.views.image.family import in_family
from selfsup.views.image.labelled import LabelledViews


class S4L(Task):
    """Cross-entropy on the labelled images plus a weighted pretext loss on all (Zhai et al., 2019, section 3).

    The pretext task shares the encoder; one that changes its encoder, `split_brain`, shares the changed one. Each batch
    holds as many labelled images as other samples (section 4), shifted over black and flipped. Chance is
    ln `num_classes` + `pretext_weight` · the pretext's chance.

    Batch: the pretext's keys (rotation: `x` (B, C, H, W) float), drawn from all samples, and a labelled companion for
    each: `x_labelled` (B, C, H, W) float, `y_labelled` (B,) int64 in 0..num_classes-1.
    Published: ImageNet, 10% of the labels, ResNet50v2 (4×), rotation: 61.4% top-1 against 56.4% from the labels alone.

    Deviations: the pretext sees labelled images as often as they occur in the data, not half of the time; each loss has
    its own forward pass, and therefore its own BatchNorm statistics.

    Args:
        num_classes: Number of classes; by default as many as the labels name, in [2, inf).
        pretext: A task on images that needs no labels, by name.
        pretext_weight: Weight of the pretext loss, in [0, inf).
        pad: Largest shift of the images in pixels, over black; the pretext's too if it has one, in [0, inf).
        flip: Probability of mirroring an image; the pretext's too if it has one, in [0, 1].
        rotate_labelled: With rotation, classify each labelled image in all four rotations, as in the paper. Not for
            digits: a rotated 6 is a 9.
        options: Hyper-parameters of the pretext task.
    """

    paper = "Zhai et al., 2019"
    section = "semi-supervised"
    needs_labels = True
    uses_unlabelled = True

    def __init__(
        self,
        encoder: Encoder,
        *,
        num_classes: int,
        pretext: str = "rotation",
        pretext_weight: float = 1.0,
        pad: int = 4,
        flip: float = 0.5,
        rotate_labelled: bool = True,
        options: dict[str, int | float | str] | None = None,
    ) -> None:
        options = options or {}
        known = find_part(pretext).hyperparameters()
        common = {key: value for key, value in {"pad": pad, "flip": flip}.items() if key in known}
        part = build_part(pretext, encoder, common | options)
        super().__init__(part.encoder)
        self.pretext, self.name = part, pretext
        self.num_classes, self.pretext_weight, self.pad, self.flip = num_classes, pretext_weight, pad, flip
        self.rotate_labelled = rotate_labelled and isinstance(self.pretext, Rotation)
        self.head = nn.Linear(part.encoder.dim, num_classes)

    @classmethod
    def resolve(cls, source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
        """Take the number of classes from the labels, and the pretext's options that depend on the data."""
        return count_classes(source, given) | resolve_pretext(cls, source, given)

    def samples(self, source: Source) -> Source:
        """Let the pretext task inspect the data."""
        check_source("s4l", self.name, self.pretext, source)
        return source

    def views(self, spec: ImageSpec) -> LabelledViews:
        """Return the pretext's views with their labelled companions."""
        plain = ImageViews(replace(spec, views=NATURAL), {"x_labelled": Crop(spec.size)}, labels=True)
        moved = {"x": Crop(spec.size, pad=self.pad, flip=self.flip)}
        return LabelledViews(self.pretext.views(spec), plain, in_family(spec.views, moved)["x"])

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy of the labels plus the weighted loss of the pretext."""
        pretext = loss_of_part(self, self.pretext, batch)
        x, y = batch["x_labelled"], batch["y_labelled"]
        if self.rotate_labelled:
            x, y = all_rotations(x)[0], y.repeat(4)
        logits = self.head(self.encoder(x))
        label = F.cross_entropy(logits, y)
        chance = None if pretext.chance is None else math.log(self.num_classes) + self.pretext_weight * pretext.chance
        metrics = {
            "label_loss": label.detach(),
            "pretext_loss": pretext.value.detach(),
            "label_accuracy": accuracy(logits, y),
        }
        return Loss(label + self.pretext_weight * pretext.value, metrics, chance)

    def after_step(self) -> None:
        """Update the state of the pretext task."""
        self.pretext.after_step()

    def lr_of(self, child: str, scheduled: float, peak: float) -> float:
        """Ask the pretext task about its own children; encoder and head have the scheduled learning rate."""
        part, _, own = child.partition(".")
        return lr_of_part(self, self.pretext, own, scheduled, peak) if part == "pretext" else scheduled

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return each labelled image with its class, beside a row of the pretext."""
        captions = [f"class {y}" for y in batch["y_labelled"].tolist()]
        if guess:
            guesses = self.head(self.encoder(batch["x_labelled"])).argmax(1).tolist()
            captions = [f"{caption}, guess {y}" for caption, y in zip(captions, guesses, strict=True)]
        rows = zip(batch["x_labelled"], captions, self.pretext.panels(batch, guess), strict=True)
        return [[Panel(x, caption), *row] for x, caption, row in rows]
