"""DINO (Caron et al., 2021): a student and its EMA teacher assign crops of an image to the same prototypes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from selfsup.base.distributed import gather
from selfsup.losses import cross_view_entropy
from selfsup.nn.ema import Momentum, ema_update, frozen_copy
from selfsup.nn.image.self_distillation import Prototypes, Temperatures, bottleneck, crop_by_crop, crop_panels
from selfsup.source import Source
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task, at_most_samples
from selfsup.views.image import ImageViews, multi_crop


class DINO(Task):
    """Predict an EMA teacher's assignment of another crop to prototypes (Caron et al., 2021, section 3.1).

    The teacher sees two large crops; the student sees these and several small ones. Cosines to K prototypes, divided by
    a temperature, go through a softmax; the teacher's are centred by their running mean and sharpened by a lower
    temperature, and are the targets for all other crops. Chance is ln K: a loss that stays there has collapsed to the
    same output for all images. `entropy` is that of the teacher's output, from 0 to ln K; `start_left` is the weight of
    the random start in the teacher. The teacher is kept, as in the paper.

    Batch: `x` (B, 2, C, H, W) and `local` (B, L, C, h, w) float.
    Published: ImageNet, ViT-S/16 linear 77.0%, 20-NN 74.5%.
    Deviations: fewer prototypes, a narrower head and fewer small crops, to suit small data; constant weight decay;
    BatchNorm in the head and a constant teacher temperature: without both, short runs collapse. The head's input is
    the encoder's pooled output: the class token if it has one.

    Args:
        num_prototypes: Prototypes K, at most the number of samples; 65,536 in the paper, in [2, inf).
        hidden_dim: Width of the head's hidden layers; 2048 in the paper, in [1, inf).
        out_dim: Dimension of the vectors compared with the prototypes; 256 in the paper, in [1, inf).
        num_local_crops: Small crops of each image, 0 or at least 2; 8 in the paper, in [0, inf).
        student_temperature: Divides the student's cosines, in (0, inf).
        teacher_temperature: Divides the teacher's cosines after the warmup; 0.07 in the paper, in (0, inf).
        warmup_teacher_temperature: Teacher's temperature at the start, in (0, inf).
        teacher_warmup: Fraction of the training over which the teacher's temperature rises linearly, in [0, 1].
        momentum: Momentum of the teacher at the start; it rises to 1 along a cosine. By default from the number of
            steps: 0.97 for up to 1,333, 0.99 for 4,000, 0.996 from 10,000 on; 0.996 in the paper, in [0, 1].
        center_momentum: Momentum of the center, in [0, 1].
        freeze_prototypes: Fraction of the training, from the start, in which the prototypes are frozen, in [0, 1].
        batch_norm: BatchNorm in the head; not in the paper's ViTs.
    """

    paper = "Caron et al., 2021"
    section = "images: distillation"
    any_size = True
    default_encoder = "vit"
    small_encoder = "vit-mini"
    defaults = {"lr": 1e-3, "weight_decay": 0.04, "warmup": 0.1, "clip": 3.0}  # noqa: RUF012

    center: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        num_prototypes: int = 1024,
        hidden_dim: int = 512,
        out_dim: int = 128,
        num_local_crops: int = 6,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        warmup_teacher_temperature: float = 0.04,
        teacher_warmup: float = 0.3,
        momentum: float | None = None,
        center_momentum: float = 0.9,
        freeze_prototypes: float = 0.01,
        batch_norm: bool = True,
    ) -> None:
        super().__init__(encoder)
        temperatures = student_temperature, warmup_teacher_temperature, teacher_temperature, teacher_warmup
        self.temperatures, self.momentum = Temperatures(*temperatures), Momentum(momentum)
        self.center_momentum, self.freeze_prototypes = center_momentum, freeze_prototypes
        self.num_local_crops = num_local_crops
        self.head = bottleneck(encoder.dim, hidden_dim, out_dim, batch_norm)
        self.prototypes = Prototypes(out_dim, num_prototypes)
        self.teacher: Any = frozen_copy(torch.nn.Sequential(self.encoder, self.head, self.prototypes))
        self.register_buffer("center", torch.zeros(num_prototypes))
        self.seen: Tensor | None = None

    @classmethod
    def resolve(cls, source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
        """No more prototypes than samples."""
        return at_most_samples(source, given, cls, "num_prototypes")

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return large and small crops."""
        return ImageViews(spec, multi_crop(spec.size, self.num_local_crops, getattr(self.encoder, "patch", 0)))

    def loss(self, batch: Batch) -> Loss:
        """Return the mean cross-entropy over pairs of crops."""
        count = len(batch["x"])
        crops = [crop_by_crop(batch[key]) for key in ("x", "local") if key in batch]
        states = torch.cat([self.encoder(crop) for crop in crops])  # one pass for each size
        logits = self.prototypes(self.head(states)).unflatten(0, (-1, count))
        with torch.no_grad():
            cosines = self.teacher(crops[0])
            self.seen = cosines
            temperature = self.temperatures.teacher(self.progress)
            targets = ((cosines - self.center) / temperature).softmax(1).unflatten(0, (2, count))
        value = cross_view_entropy(targets, logits, self.temperatures.student)
        entropy = torch.special.entr(targets).sum(2).mean()
        return Loss(value, {"entropy": entropy, **self.momentum.metrics()}, math.log(len(self.center)))

    def after_step(self) -> None:
        """Update the teacher and its center."""
        student = torch.nn.Sequential(self.encoder, self.head, self.prototypes)
        ema_update(self.teacher, student, self.momentum.advance(self.progress, self.steps))
        assert self.seen is not None
        self.center.lerp_(gather(self.seen).mean(0), 1 - self.center_momentum)
        self.seen = None

    def lr_of(self, child: str, scheduled: float, peak: float) -> float:
        """Freeze the prototypes at first."""
        return 0.0 if child == "prototypes" and self.progress < self.freeze_prototypes else scheduled

    def representation(self) -> Encoder:
        """Return the teacher; `encoder` is the student."""
        return self.teacher[0]

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the crops; with `guess` the prototype that the teacher assigns to each."""
        crops = [crop_by_crop(batch[key]) for key in ("x", "local") if key in batch]
        found = torch.cat([self.teacher(crop) - self.center for crop in crops]).argmax(1).tolist() if guess else []
        return crop_panels(batch, names=[f"prototype {place}" for place in found])
