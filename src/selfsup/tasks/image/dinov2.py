"""DINOv2 (Oquab et al., 2023): iBOT with two heads, Sinkhorn assignments and the KoLeo regularizer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from selfsup.base.distributed import gather
from selfsup.losses import cross_view_entropy, koleo, sinkhorn
from selfsup.nn.ema import cosine_schedule, ema_update, frozen_copy
from selfsup.nn.image.masks import grid_of
from selfsup.nn.image.self_distillation import (
    check_options,
    half_masked,
    masked_entropy,
    patch_panels,
    prototype_head,
    risen,
)
from selfsup.source import Source
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task, at_most_samples
from selfsup.views.image import ImageViews, multi_crop


class DINOv2(Task):
    """Predict an EMA teacher's prototypes of other crops and of masked patches (Oquab et al., 2023, section 4).

    As iBOT, with a separate head for the patches. Three Sinkhorn iterations, in place of the centre, spread the
    teacher's assignments evenly over the prototypes, and the KoLeo regularizer spreads the pooled outputs of each large
    crop over the sphere. One of the two large crops is masked, in blocks. Chance is 2 ln K, apart from the KoLeo term.

    Batch: `x` (B, 2, C, H, W) and `local` (B, L, C, h, w) float; `noise` (B,) int64, from which the masks are drawn.
    Published: ImageNet, ViT-g/14 83.5% by 20-NN, 86.5% linear.

    Deviations: fewer prototypes and small crops and a lower momentum (see the options). One crop of each image is
    masked (the paper: half of all). The loss on crops uses the pooled output, which is the mean of the patches for an
    encoder without a class token. Weight decay and image size are constant.

    Args:
        num_prototypes: Prototypes of each head, at most the number of samples; 131,072 in the paper, in [2, inf).
        hidden_dim: Width of the hidden layers of both heads, in [1, inf).
        out_dim: Dimension of the embedding that is compared with the prototypes, in [1, inf).
        num_local_crops: Local (small) crops of each image, 0 or at least 2; 8 in the paper, in [0, inf).
        min_mask_ratio: Smallest fraction of the patches that is masked in a crop, in [0, 1).
        max_mask_ratio: Largest fraction of the patches that is masked in a crop, in [0, 1).
        student_temperature: Divides the student's cosines, in (0, inf).
        teacher_temperature: Divides the teacher's cosines after the warm-up, in (0, inf).
        warmup_teacher_temperature: Divides the teacher's cosines at the start, in (0, inf).
        teacher_warmup: Fraction of the training in which the teacher's temperature rises linearly, in [0, 1].
        momentum: Momentum of the teacher at the start; it rises to 1 along a cosine; 0.994 in the paper, in [0, 1].
        koleo_weight: Weight of the KoLeo regularizer, in [0, inf).
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
        teacher_temperature: float = 0.07,
        warmup_teacher_temperature: float = 0.04,
        teacher_warmup: float = 0.3,
        momentum: float = 0.99,
        koleo_weight: float = 0.1,
    ) -> None:
        super().__init__(encoder)
        self.grid = grid_of(encoder)
        self.student_temperature = student_temperature
        self.teacher_temperatures = warmup_teacher_temperature, teacher_temperature
        check_options(student_temperature, *self.teacher_temperatures, least=min_mask_ratio, most=max_mask_ratio)
        self.num_local_crops, self.mask_ratios = num_local_crops, (min_mask_ratio, max_mask_ratio)
        self.teacher_warmup, self.momentum, self.koleo_weight = teacher_warmup, momentum, koleo_weight
        self.head = prototype_head(encoder.dim, hidden_dim, out_dim, num_prototypes)
        self.patch_head = prototype_head(encoder.dim, hidden_dim, out_dim, num_prototypes)
        self.mask_token = nn.Parameter(torch.zeros(encoder.dim))
        self.teacher, self.teacher_head = frozen_copy(self.encoder), frozen_copy(self.head)
        self.teacher_patch_head, self.chance = frozen_copy(self.patch_head), 2 * math.log(num_prototypes)

    @classmethod
    def resolve(cls, source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
        """Limit the prototypes to the number of samples."""
        return at_most_samples(source, given, cls, "num_prototypes")

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return large and small crops."""
        return ImageViews(spec, multi_crop(spec.size, self.num_local_crops, self.encoder.patch), noise=True)

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy of crops plus that of masked patches."""
        large, mask = half_masked(batch, self.grid, *self.mask_ratios)
        tokens = self.encoder.tokens(large, mask=mask, mask_token=self.mask_token[None])
        pooled = [self.encoder.pool(tokens)]
        if "local" in batch:
            pooled.append(self.encoder(batch["local"].transpose(0, 1).flatten(0, 1)))
        crops = self.head(torch.cat(pooled)).unflatten(0, (-1, len(batch["x"])))
        patches = self.patch_head(tokens[:, self.encoder.prefix :][mask])
        with torch.no_grad():
            temperature = risen(*self.teacher_temperatures, self.progress, self.teacher_warmup)
            of_crops, of_patches = (sinkhorn(cosines, temperature) for cosines in self._teacher(large, mask))
        crop = cross_view_entropy(of_crops.view(2, len(batch["x"]), -1), crops, self.student_temperature)
        patch = masked_entropy(of_patches, patches, self.student_temperature, mask)
        regularizer = torch.stack([koleo(gather(view)) for view in pooled[0].chunk(2)]).sum()
        metrics = {"crop_loss": crop.detach(), "patch_loss": patch.detach(), "koleo": regularizer.detach()}
        return Loss(crop + patch + self.koleo_weight * regularizer, metrics, self.chance)

    def _teacher(self, large: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the teacher's cosines of the crops and of the masked patches."""
        tokens = self.teacher.tokens(large)
        patches = tokens[:, self.encoder.prefix :][mask]
        return self.teacher_head(self.teacher.pool(tokens)), self.teacher_patch_head(patches)

    def after_step(self) -> None:
        """Update the teacher."""
        momentum = cosine_schedule(self.momentum, 1.0, self.progress)
        ema_update(self.teacher, self.encoder, momentum)
        ema_update(self.teacher_head, self.head, momentum)
        ema_update(self.teacher_patch_head, self.patch_head, momentum)

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the masked crops; with `guess` the number of masked patches that student and teacher assign alike."""
        large, mask = half_masked(batch, self.grid, *self.mask_ratios)
        if not guess:
            return patch_panels(batch, mask)
        tokens = self.encoder.tokens(large, mask=mask, mask_token=self.mask_token[None]), self.teacher.tokens(large)
        student, teacher = (each[:, self.encoder.prefix :] for each in tokens)
        return patch_panels(batch, mask, (self.patch_head(student), self.teacher_patch_head(teacher)))
