"""DINO (Caron et al., 2021): a student and its slow teacher agree on a prototype for crops of one image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from selfsup.losses import cross_view_entropy
from selfsup.nn.distributed import gather
from selfsup.nn.ema import cosine_schedule, ema_update, frozen_copy
from selfsup.nn.image.self_distillation import Prototypes, bottleneck, check_options, crop_panels, risen
from selfsup.source import Source
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task, at_most_samples
from selfsup.views.image import ImageViews, multi_crop


class DINO(Task):
    """Predict which prototypes a slow teacher sees in another crop of the image (Caron et al., 2021, section 3.1).

    The teacher sees two large crops, the student these and `local` small ones. A crop's cosines to the prototypes are
    divided by a temperature and a softmax is taken; the teacher's, sharper, less a slow mean of them (the centre), are
    the targets of every other crop. The teacher's temperature rises over the first `warm` of the training from
    `first_temperature`, its momentum from `momentum` to 1; the prototypes rest for the first `freeze`. Chance is ln K:
    a loss that stays there has collapsed to one answer for all. `entropy` is that of the teacher's answers, 0 to ln K.

    Batch: `x` (B, 2, C, H, W) and `local` (B, L, C, h, w) float.
    Published: ImageNet, ViT-S/16 linear 77.0%, 20-NN 74.5%.

    Deviations: 1,024 prototypes and a narrower head for small data (the paper 65,536; 2,048 and 256), 6 small crops,
    not 8; momentum from 0.99, not 0.996, for trainings of some thousand steps; weight decay does not rise. BatchNorm in
    the head (`norm`) and a teacher's temperature of 0.04 to the end, not 0.07: without both short trainings collapse.
    What the head gets is the encoder's pooled output: the class token where it has one.
    """

    paper = "Caron et al., 2021"
    section = "images: distillation"
    default_encoder = "vit"
    small_encoder = "vit-mini"
    defaults = {"lr": 1e-3, "weight_decay": 0.04, "warmup": 0.1, "clip": 3.0}  # noqa: RUF012

    centre: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        prototypes: int = 1024,
        hidden: int = 512,
        dim: int = 128,
        local: int = 6,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        first_temperature: float = 0.04,
        warm: float = 0.3,
        momentum: float = 0.99,
        centre_momentum: float = 0.9,
        freeze: float = 0.01,
        norm: bool = True,
    ) -> None:
        super().__init__(encoder)
        check_options(student_temperature, teacher_temperature, first_temperature)
        self.temperature, self.temperatures = student_temperature, (first_temperature, teacher_temperature)
        self.warm, self.momentum, self.centre_momentum, self.freeze = warm, momentum, centre_momentum, freeze
        self.local = local
        self.head, self.prototypes = bottleneck(encoder.dim, hidden, dim, norm), Prototypes(dim, prototypes)
        self.slow = frozen_copy(torch.nn.Sequential(self.encoder, self.head, self.prototypes))
        self.register_buffer("centre", torch.zeros(prototypes))
        self.seen: Tensor | None = None

    @classmethod
    def resolve(cls, source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
        """No more prototypes than samples."""
        return at_most_samples(source, given, cls, "prototypes")

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return large and small crops."""
        return ImageViews(spec, multi_crop(spec.size, self.local, getattr(self.encoder, "patch", 0)))

    def loss(self, batch: Batch) -> Loss:
        """Return the mean cross-entropy over pairs of crops."""
        count = len(batch["x"])
        crops = [batch[key].transpose(0, 1).flatten(0, 1) for key in ("x", "local") if key in batch]
        states = torch.cat([self.encoder(crop) for crop in crops])  # one pass a size
        logits = self.prototypes(self.head(states)).unflatten(0, (-1, count))
        with torch.no_grad():
            cosines = self.slow(crops[0])
            self.seen = cosines
            sharp = (cosines - self.centre) / risen(*self.temperatures, self.progress, self.warm)
            targets = sharp.softmax(1).unflatten(0, (2, count))
        value = cross_view_entropy(targets, logits, self.temperature)
        entropy = torch.special.entr(targets).sum(2).mean()
        return Loss(value, {"entropy": entropy}, math.log(len(self.centre)))

    def after_step(self) -> None:
        """Let the teacher and its centre follow."""
        ema_update(self.slow[0], self.encoder, m := self._momentum())
        ema_update(self.slow[1:], torch.nn.Sequential(self.head, self.prototypes), m)
        assert self.seen is not None
        self.centre.lerp_(gather(self.seen).mean(0), 1 - self.centre_momentum)
        self.seen = None

    def _momentum(self) -> float:
        return cosine_schedule(self.momentum, 1.0, self.progress)

    def lr_of(self, child: str, scheduled: float, peak: float) -> float:
        """Let the prototypes rest at first."""
        return 0.0 if child == "prototypes" and self.progress < self.freeze else scheduled

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the crops; with `guess` the prototype that the teacher finds in each."""
        crops = [batch[key].transpose(0, 1).flatten(0, 1) for key in ("x", "local") if key in batch]
        found = torch.cat([self.slow(crop) - self.centre for crop in crops]).argmax(1).tolist() if guess else []
        return crop_panels(batch, names=[f"prototype {place}" for place in found])
