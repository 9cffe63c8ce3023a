"""iBOT (Zhou et al., 2022): DINO for crops and for masked patches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from selfsup.base.distributed import sum_over_ranks
from selfsup.losses import cross_view_entropy
from selfsup.nn.ema import Momentum, ema_update, frozen_copy
from selfsup.nn.image import self_distillation as shared
from selfsup.nn.image.masks import grid_of
from selfsup.source import Source
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task, at_most_samples
from selfsup.views.image import ImageViews, multi_crop


class IBOT(Task):
    """Predict an EMA teacher's prototypes of other crops and of masked patches (Zhou et al., 2022).

    As in DINO, the student predicts the teacher's softmax over prototypes for every other crop of the image. In one of
    the two large crops, blocks of patches are replaced by a mask token, and for each of these patches the student
    predicts the output of the teacher, which sees the whole crop. Both losses share the head and have the same weight;
    each has its own center. Chance is 2 ln K. `entropy` is that of the teacher's output for crops, from 0 to ln K;
    `start_left` is the weight of the random start in the teacher. The teacher is kept, as in the paper.

    Batch: `x` (B, 2, C, H, W) and `local` (B, L, C, h, w) float; `noise` (B,) int64, from which the masks are drawn.
    Published: ImageNet, ViT-S/16 linear 77.9%, 20-NN 75.2%.

    Deviations: fewer prototypes of unit length, fewer small crops, a narrower head. One crop of each image is masked
    (the paper: each with probability 0.5). The loss on crops uses the pooled output, which is the mean of the patches
    for an encoder without a class token. The center of the patches is that of the masked ones alone. Weight decay and
    teacher temperature are constant, and the head has BatchNorm: without both, short runs drift to uniform outputs. No
    drop path (0.1 in the paper), which is for deep encoders.

    Args:
        num_prototypes: Prototypes of the head, at most the number of samples; 8,192 in the paper, in [2, inf).
        hidden_dim: Width of the hidden layers of the head, in [1, inf).
        out_dim: Dimension of the embedding that is compared with the prototypes, in [1, inf).
        num_local_crops: Local (small) crops of each image, 0 or at least 2; 10 in the paper, in [0, inf).
        min_mask_ratio: Smallest fraction of the patches that is masked in a crop, in [0, 1).
        max_mask_ratio: Largest fraction of the patches that is masked in a crop, in [0, 1).
        student_temperature: Divides the student's cosines, in (0, inf).
        teacher_temperature: Divides the teacher's cosines after the warm-up; 0.07 in the paper, in (0, inf).
        warmup_teacher_temperature: Divides the teacher's cosines at the start, in (0, inf).
        teacher_warmup: Fraction of the training in which the teacher's temperature rises linearly, in [0, 1].
        momentum: Momentum of the teacher at the start; it rises to 1 along a cosine. By default from the number of
            steps: 0.97 for up to 1,333, 0.99 for 4,000, 0.996 from 10,000 on; 0.996 in the paper, in [0, 1].
        center_momentum: Momentum of the centers, in [0, 1].
        freeze_prototypes: Fraction of the training, from the start, in which the prototypes are frozen, in [0, 1].
        batch_norm: BatchNorm in the head; not in the paper.
    """

    paper = "Zhou et al., 2022"
    section = "images: distillation"
    default_encoder = "vit"
    small_encoder = "vit-mini"
    defaults = {"lr": 1e-3, "weight_decay": 0.04, "warmup": 0.1, "clip": 3.0}  # noqa: RUF012
    centers: Tensor  # (2, K): of crops, of patches

    def __init__(
        self,
        encoder: Encoder,
        *,
        num_prototypes: int = 1024,
        hidden_dim: int = 512,
        out_dim: int = 128,
        num_local_crops: int = 6,
        min_mask_ratio: float = 0.1,
        max_mask_ratio: float = 0.5,
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
        self.temperatures, self.momentum = shared.Temperatures(*temperatures), Momentum(momentum)
        self.grid, self.mask_ratios = grid_of(encoder), shared.mask_range(min_mask_ratio, max_mask_ratio)
        self.num_local_crops, self.freeze_prototypes = num_local_crops, freeze_prototypes
        self.center_momentum = center_momentum
        self.head = shared.bottleneck(encoder.dim, hidden_dim, out_dim, batch_norm)
        self.prototypes = shared.Prototypes(out_dim, num_prototypes)
        self.mask_token = nn.Parameter(torch.zeros(encoder.dim))
        self.teacher = frozen_copy(self.encoder)
        self.teacher_head = frozen_copy(nn.Sequential(self.head, self.prototypes))
        self.register_buffer("centers", torch.zeros(2, num_prototypes))
        self.seen: tuple[Tensor, Tensor] | None = None

    @classmethod
    def resolve(cls, source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
        """Limit the prototypes to the number of samples."""
        return at_most_samples(source, given, cls, "num_prototypes")

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return large crops of 0.25 to 1 of the image's area, and small ones of 0.05 to 0.25."""
        return ImageViews(spec, multi_crop(spec.size, self.num_local_crops, self.encoder.patch, 0.25), noise=True)

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy of crops plus that of masked patches."""
        large, mask = shared.half_masked(batch, self.grid, self.mask_ratios)
        states, tokens = shared.of_student(self.encoder, batch, large, mask, self.mask_token)
        crops = self.prototypes(self.head(states)).unflatten(0, (-1, len(batch["x"])))
        patches = self.prototypes(self.head(tokens[mask]))
        with torch.no_grad():
            temperature = self.temperatures.teacher(self.progress)
            pooled, masked = shared.pooled_and_masked(self.teacher, large, mask)
            self.seen = self.teacher_head(pooled), self.teacher_head(masked)
            of_crops, of_patches = (
                ((z - c) / temperature).softmax(1) for z, c in zip(self.seen, self.centers, strict=True)
            )
        crop = cross_view_entropy(of_crops.view(2, len(batch["x"]), -1), crops, self.temperatures.student)
        patch = shared.masked_entropy(of_patches, patches, self.temperatures.student, mask)
        entropy = torch.special.entr(of_crops).sum(1).mean()
        metrics = {"crop_loss": crop.detach(), "patch_loss": patch.detach(), "entropy": entropy}
        return Loss(crop + patch, metrics | self.momentum.metrics(), 2 * math.log(self.centers.shape[1]))

    def after_step(self) -> None:
        """Update the teacher and its centers."""
        momentum = self.momentum.advance(self.progress, self.steps)
        ema_update(self.teacher, self.encoder, momentum)
        ema_update(self.teacher_head, nn.Sequential(self.head, self.prototypes), momentum)
        assert self.seen is not None
        for center, cosines in zip(self.centers, self.seen, strict=True):
            count = sum_over_ranks(cosines.new_full((), len(cosines)))
            center.lerp_(sum_over_ranks(cosines.sum(0)) / count, 1 - self.center_momentum)
        self.seen = None

    def lr_of(self, child: str, scheduled: float, peak: float) -> float:
        """Freeze the prototypes at first."""
        return 0.0 if child == "prototypes" and self.progress < self.freeze_prototypes else scheduled

    def representation(self) -> Encoder:
        """Return the teacher; `encoder` is the student."""
        return self.teacher

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the masked crops; with `guess` the number of masked patches that student and teacher assign alike."""
        large, mask = shared.half_masked(batch, self.grid, self.mask_ratios)
        if not guess:
            return shared.crop_panels(batch, mask)
        _, student = shared.pooled_and_masked(self.encoder, large, mask, self.mask_token)
        _, teacher = shared.pooled_and_masked(self.teacher, large, mask)
        return shared.patch_panels(batch, mask, self.prototypes(self.head(student)), self.teacher_head(teacher))
