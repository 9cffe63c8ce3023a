"""Distillation without labels: a small encoder learns to represent images as a large, frozen one does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from selfsup.base.distributed import gather
from selfsup.base.notes import say
from selfsup.errors import UserError
from selfsup.losses import product, unit
from selfsup.nn.queue import Queue
from selfsup.source import Source
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task, Views, at_most_samples
from selfsup.tasks.image.distill_cache import TargetViews, stored_targets
from selfsup.tasks.image.distill_heads import Heads, distance, relation
from selfsup.tasks.image.distill_teacher import Teacher, represent
from selfsup.tasks.image.distill_weights import load_teacher
from selfsup.views import plain_views, single_view


class Distill(Task):
    """Predict what a frozen teacher makes of the same view, as a whole and place by place (Navaneet et al., 2021).

    A head on the student's representation is compared with that of the teacher and, if both have maps or patch tokens,
    a linear head on those of the student, on the teacher's grid, with those of the teacher. The teacher's features are
    standardized, each dimension over the batch, so that what all images have in common does not hide the rest. With
    `queue_size`, the similarities to the teacher's features of past images are predicted too (SEED: Fang et al., 2021).
    The teacher is in evaluation mode, sees images in the size and with the mean and std of its own training, and is
    stored nowhere.

    Chance is `global_weight` + `patch_weight` + ln(`queue_size` + 1), each for the terms that there are: the cosine
    with standardized features is 0 for a constant, and so much of their variance is left.

    Batch: `x` (B, C, H, W) float; with fixed views also `target` (B, dim) and `places` (B, width, h, w) float.
    Published: SEED, ImageNet, linear, MobileNetV3-Large 68.2%, EfficientNet-B0 67.6%; without a teacher 36.3 and 42.2%.

    Deviations: standardized features; both networks see the same view, with SimCLR's distortion; a shorter queue.

    Args:
        teacher: The name of a model of timm, the folder of a finished run, or a file that `export` wrote.
        teacher_digest: A hash of the teacher's weights; found by itself.
        teacher_dim: Width of the teacher's representation; found by itself, in [1, inf).
        teacher_width: Width of the teacher's maps, 0 without any; found by itself, in [0, inf).
        teacher_pretrained: Whether the model of timm gets timm's pretrained weights.
        teacher_weights: A file with the weights of the model of timm: safetensors, or what torch saved.
        teacher_size: Side in pixels at which the teacher sees the images; 0: that of its training, in [0, inf).
        match: The distance of both: 1 - cosine, or mse, the mean squared error.
        global_weight: Weight of the representation, in [0, inf).
        patch_weight: Weight of the places, in [0, inf).
        queue_size: Features of past images for the relation target, 0: none; 65,536 in the paper, in [0, inf).
        teacher_temperature: Divides the teacher's similarities, in (0, inf).
        student_temperature: Divides the student's similarities, in (0, inf).
        hidden_dim: Width of the hidden layer of the head; 0: a linear one, in [0, inf).
        fixed_views: Whether each image is always seen alike, as evaluation sees it; the teacher then reads each once.
        min_scale: Smallest area of a crop as a fraction of the image, in (0, 1].
    """

    paper = "Navaneet et al., 2021"
    section = "images: distillation"

    def __init__(
        self,
        encoder: Encoder,
        *,
        teacher: str,
        teacher_digest: str,
        teacher_dim: int,
        teacher_width: int,
        teacher_pretrained: bool = False,
        teacher_weights: str | None = None,
        teacher_size: int = 0,
        match: Literal["cosine", "mse"] = "cosine",
        global_weight: float = 1.0,
        patch_weight: float = 1.0,
        queue_size: int = 0,
        teacher_temperature: float = 0.01,
        student_temperature: float = 0.2,
        hidden_dim: int = 512,
        fixed_views: bool = False,
        min_scale: float = 0.2,
    ) -> None:
        super().__init__(encoder)
        self.asked, self.digest = (teacher, teacher_pretrained, teacher_weights, teacher_size), teacher_digest
        self.global_weight, self.patch_weight, self.match = global_weight, patch_weight, match
        self.temperatures = student_temperature, teacher_temperature
        self.fixed_views, self.min_scale = fixed_views, min_scale
        self.heads = Heads(encoder, teacher_dim, teacher_width * (patch_weight > 0), hidden_dim)
        if not (global_weight or self.heads.places or queue_size):
            raise UserError("distill has nothing to match: give a --global-weight above 0, or a --queue-size")
        self.queue = Queue(queue_size, teacher_dim) if queue_size else None
        self.seen: Tensor | None = None  # the teacher's features, for `after_step`
        self.loaded: Teacher | None = None
        self.folder: Path | None = None  # of stored targets

    @classmethod
    def resolve(cls, source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
        """Take the hash and the widths from the teacher."""
        if "teacher" not in given:
            return {}
        known = {name: parameter.default for name, parameter in cls.hyperparameters().items()} | dict(given)
        found = load_teacher(*(known[f"teacher{what}"] for what in ("", "_pretrained", "_weights", "_size")))
        widths = {"teacher_digest": found.digest(), "teacher_dim": found.dim, "teacher_width": found.width}
        return widths | at_most_samples(source, given, cls, "queue_size")

    def teacher(self) -> Teacher:
        """Return the teacher, which is loaded when it is first needed: a trained student is loaded without it."""
        if self.loaded is None:
            self.loaded = load_teacher(*self.asked, student=self.encoder.spec)
            if self.loaded.digest() != self.digest:
                raise UserError(f"the teacher {self.asked[0]} has other weights than those that the run began with")
        return self.loaded

    def samples(self, source: Source) -> Source:
        """Return the same; say who teaches, and with fixed views let the teacher read all images."""
        teacher, own = self.teacher(), sum(parameter.numel() for parameter in self.encoder.parameters())
        say(f"the teacher: {teacher.describe()}; the student has {own:,}")
        if self.patch_weight and not self.heads.places:
            who = "the student" if teacher.width else "the teacher"
            say(f"{who} has no maps or patch tokens: only the representation as a whole is matched")
        if self.fixed_views:
            self.folder = stored_targets(teacher, source, self.encoder.spec, self.heads.places)
        return source

    def views(self, spec: ImageSpec) -> Views:
        """Return one view with SimCLR's distortion; if it is fixed, the plain one with what the teacher made of it."""
        if not self.fixed_views:
            return single_view(spec, self.min_scale)
        return plain_views(spec) if self.folder is None else TargetViews(plain_views(spec), str(self.folder))

    def targets(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Return the teacher's representation (B, teacher_dim) and its map."""
        if "target" in batch:
            return batch["target"], batch.get("places")
        return self.teacher()(batch["x"], self.encoder.spec, self.heads.places)

    def loss(self, batch: Batch) -> Loss:
        """Return the weighted sum of the distances to the teacher's features, and of the relation to past ones."""
        z, maps = represent(self.encoder, batch["x"], self.heads.places)
        target, places = self.targets(batch)
        s, t = self.heads(z, target)
        terms, chance = {"global": self.global_weight * distance(s, t, self.match)}, self.global_weight
        if maps is not None and places is not None:
            terms["places"] = self.patch_weight * distance(*self.heads.at_places(maps, places), self.match)
            chance += self.patch_weight
        if self.queue is not None:
            self.seen = unit(t)
            terms["relation"] = relation(unit(s), self.seen, self.queue.rows, self.temperatures)
            chance += math.log(len(self.queue.rows) + 1)
        return Loss(torch.stack([*terms.values()]).sum(), {name: term.detach() for name, term in terms.items()}, chance)

    def after_step(self) -> None:
        """Put the teacher's features of the global batch into the queue."""
        if self.queue is not None and self.seen is not None:
            self.queue.put(gather(self.seen))
            self.seen = None

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return each view beside that of the others which the teacher finds nearest, with `guess` also the student."""
        x, seen = batch["x"], {"teacher": self.targets(batch)[0]}
        seen |= {"student": self.encoder(x)} if guess else {}
        near = {who: product(unit(z), unit(z).T).fill_diagonal_(-2).argmax(1).tolist() for who, z in seen.items()}
        others = (
            [Panel(x[found[row]], f"{who}: {found[row]}") for who, found in near.items()] for row in range(len(x))
        )
        return [[Panel(x[row], f"image {row}"), *panels] for row, panels in enumerate(others)]
