"""DINOv2 (Oquab et al., 2023): iBOT with two heads, Sinkhorn assignments and the KoLeo regularizer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from selfsup.base.distributed import gather
from selfsup.losses import cross_view_entropy, gram_distance, koleo, sinkhorn
from selfsup.nn.ema import Momentum, ema_update, frozen_copy
from selfsup.nn.image import self_distillation as shared
from selfsup.nn.image.masks import grid_of
from selfsup.source import Source
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task, at_most_samples
from selfsup.views.image import ImageViews, multi_crop


class DINOv2(Task):
    """Predict an EMA teacher's prototypes of other crops and of masked patches (Oquab et al., 2023, section 4).

    As iBOT, with a separate head for the patches. Three Sinkhorn iterations, in place of the centre, spread the
    teacher's assignments evenly over the prototypes, and the KoLeo regularizer spreads the pooled outputs of each large
    crop over the sphere. One of the two large crops is masked, in blocks. Chance is 2 ln K, apart from the KoLeo term.
    `start_left` is the weight of the random start in the teacher. The teacher is kept, as in the paper.

    With `gram_weight` the patches of large crops are anchored (DINOv3, Siméoni et al., 2025): after the fraction
    `gram_start` of the training their cosines stay near those that the teacher had at that time.

    Batch: `x` (B, 2, C, H, W) and `local` (B, L, C, h, w) float; `noise` (B,) int64, from which the masks are drawn.
    Published: ImageNet, ViT-g/14 83.5% by 20-NN, 86.5% linear.

    Deviations: fewer prototypes and small crops, narrower heads. One crop of each image is masked (the paper: half of
    all). The loss on crops uses the pooled output, which is the mean of the patches for an encoder without a class
    token. Weight decay, image size and teacher temperature are constant: at 0.07 the loss on crops stays at chance in
    short runs. Gram anchoring compares crops of the same size with one snapshot, where DINOv3 renews it every 10,000
    steps and later takes it from larger crops. No layer-wise decay of the learning rate (0.9 a block), LayerScale or
    drop path (0.3), which are for deep encoders.

    Args:
        num_prototypes: Prototypes of each head, at most the number of samples; 131,072 in the paper, in [2, inf).
        hidden_dim: Width of the hidden layers of both heads, in [1, inf).
        out_dim: Dimension of the embedding that is compared with the prototypes, in [1, inf).
        num_local_crops: Local (small) crops of each image, 0 or at least 2; 8 in the paper, in [0, inf).
        min_mask_ratio: Smallest fraction of the patches that is masked in a crop, in [0, 1).
        max_mask_ratio: Largest fraction of the patches that is masked in a crop, in [0, 1).
        student_temperature: Divides the student's cosines, in (0, inf).
        teacher_temperature: Divides the teacher's cosines after the warm-up; 0.07 in the paper, in (0, inf).
        warmup_teacher_temperature: Divides the teacher's cosines at the start, in (0, inf).
        teacher_warmup: Fraction of the training in which the teacher's temperature rises linearly, in [0, 1].
        momentum: Momentum of the teacher at the start; it rises to 1 along a cosine. By default from the number of
            steps: 0.97 for up to 1,333, 0.99 for 4,000, 0.996 from 10,000 on; 0.994 in the paper, in [0, 1].
        koleo_weight: Weight of the KoLeo regularizer, in [0, inf).
        freeze_prototypes: Fraction of the training, from the start, in which the prototypes are frozen, in [0, 1].
        gram_weight: Weight of Gram anchoring; 2 in DINOv3, 0: none, in [0, inf).
        gram_start: Fraction of the training after which patches are anchored to the teacher of that time, in [0, 1].
    """

    paper = "Oquab et al., 2023"
    section = "images: distillation"
    default_encoder = "vit"
    small_encoder = "vit-mini"
    defaults = {"lr": 1e-3, "weight_decay": 0.04, "warmup": 0.1, "clip": 3.0}  # noqa: RUF012

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
        koleo_weight: float = 0.1,
        freeze_prototypes: float = 0.01,
        gram_weight: float = 0.0,
        gram_start: float = 0.5,
    ) -> None:
        super().__init__(encoder)
        temperatures = student_temperature, warmup_teacher_temperature, teacher_temperature, teacher_warmup
        self.temperatures, self.momentum = shared.Temperatures(*temperatures), Momentum(momentum)
        self.grid, self.mask_ratios = grid_of(encoder), shared.mask_range(min_mask_ratio, max_mask_ratio)
        self.num_local_crops, self.freeze_prototypes = num_local_crops, freeze_prototypes
        self.koleo_weight, self.gram_weight, self.gram_start = koleo_weight, gram_weight, gram_start
        self.head, self.patch_head = (shared.bottleneck(encoder.dim, hidden_dim, out_dim) for _ in range(2))
        self.prototypes, self.patch_prototypes = (shared.Prototypes(out_dim, num_prototypes) for _ in range(2))
        self.mask_token = nn.Parameter(torch.zeros(encoder.dim))
        self.teacher, self.chance = frozen_copy(self.encoder), 2 * math.log(num_prototypes)
        self.gram_teacher = frozen_copy(self.encoder) if gram_weight else None
        self.teacher_head = frozen_copy(nn.Sequential(self.head, self.prototypes))
        self.teacher_patch_head = frozen_copy(nn.Sequential(self.patch_head, self.patch_prototypes))

    @classmethod
    def resolve(cls, source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
        """Limit the prototypes to the number of samples."""
        return at_most_samples(source, given, cls, "num_prototypes")

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return large crops of 0.32 to 1 of the image's area, and small ones of 0.05 to 0.32."""
        return ImageViews(spec, multi_crop(spec.size, self.num_local_crops, self.encoder.patch, 0.32), noise=True)

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy of crops plus that of masked patches."""
        large, mask = shared.half_masked(batch, self.grid, self.mask_ratios)
        states, tokens = shared.of_student(self.encoder, batch, large, mask, self.mask_token)
        crops = self.prototypes(self.head(states)).unflatten(0, (-1, len(batch["x"])))
        patches = self.patch_prototypes(self.patch_head(tokens[mask]))
        with torch.no_grad():
            temperature = self.temperatures.teacher(self.progress)
            pooled, masked = shared.pooled_and_masked(self.teacher, large, mask)
            of_crops = sinkhorn(self.teacher_head(pooled), temperature)
            of_patches = sinkhorn(self.teacher_patch_head(masked), temperature)
        crop = cross_view_entropy(of_crops.view(2, len(batch["x"]), -1), crops, self.temperatures.student)
        patch = shared.masked_entropy(of_patches, patches, self.temperatures.student, mask)
        regularizer = torch.stack([koleo(gather(view)) for view in states[: len(large)].chunk(2)]).sum()
        metrics = {"crop_loss": crop.detach(), "patch_loss": patch.detach(), "koleo": regularizer.detach()}
        value = crop + patch + self.koleo_weight * regularizer
        if self.gram_teacher is not None and self.progress > self.gram_start:
            with torch.no_grad():
                anchor = self.gram_teacher.tokens(large)[:, self.encoder.prefix :]
            gram = gram_distance(tokens, anchor)
            value, metrics = value + self.gram_weight * gram, metrics | {"gram": gram.detach()}
        return Loss(value, metrics | self.momentum.metrics(), self.chance)

    def after_step(self) -> None:
        """Update the teacher."""
        momentum = self.momentum.advance(self.progress, self.steps)
        ema_update(self.teacher, self.encoder, momentum)
        if self.gram_teacher is not None and self.progress <= self.gram_start:
            ema_update(self.gram_teacher, self.teacher, 0.0)
        ema_update(self.teacher_head, nn.Sequential(self.head, self.prototypes), momentum)
        ema_update(self.teacher_patch_head, nn.Sequential(self.patch_head, self.patch_prototypes), momentum)

    def lr_of(self, child: str, scheduled: float, peak: float) -> float:
        """Freeze the prototypes at first."""
        return 0.0 if child.endswith("prototypes") and self.progress < self.freeze_prototypes else scheduled

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
        return shared.patch_panels(
            batch, mask, self.patch_prototypes(self.patch_head(student)), self.teacher_patch_head(teacher)
        )
