"""DINOv2 (Oquab et al., 2023): iBOT with two heads, even assignments and a spread over the sphere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from selfsup.losses import cross_view_entropy, koleo, sinkhorn
from selfsup.nn.distributed import gather
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
    """Predict a slow teacher's prototypes of other crops and of hidden patches (Oquab et al., 2023, section 4).

    As iBOT, with a head of its own for the patches; the teacher's answers are shared out evenly over the prototypes by
    three iterations of Sinkhorn, which takes the place of the centre; and KoLeo, times `spread`, spreads the pooled
    outputs of each large crop over the sphere. In one of the two large crops the share `least` to `most` of the patches
    is hidden, in blocks. Chance is 2 ln K, beside what KoLeo adds.

    Batch: `x` (B, 2, C, H, W) and `local` (B, L, C, h, w) float; `noise` (B,) int64, from which the masks are drawn.
    Published: ImageNet, ViT-g/14 83.5% by 20-NN, 86.5% linear.

    Deviations: 1,024 prototypes in each head (the paper 131,072), 6 small crops (8), momentum from 0.99 (0.994). One
    crop of each image is masked (the paper: half of all). The crop's question is put to the pooled output, a mean of
    the patches for an encoder without a class token. Neither weight decay nor the sizes of images change.
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
        prototypes: int = 1024,
        hidden: int = 512,
        dim: int = 128,
        local: int = 6,
        least: float = 0.1,
        most: float = 0.5,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.07,
        first_temperature: float = 0.04,
        warm: float = 0.3,
        momentum: float = 0.99,
        spread: float = 0.1,
    ) -> None:
        super().__init__(encoder)
        self.grid = grid_of(encoder)
        check_options(student_temperature, teacher_temperature, first_temperature, least=least, most=most)
        self.local, self.least, self.most = local, least, most
        self.temperature, self.temperatures = student_temperature, (first_temperature, teacher_temperature)
        self.warm, self.momentum, self.spread = warm, momentum, spread
        self.head, self.patch_head = (prototype_head(encoder.dim, hidden, dim, prototypes) for _ in range(2))
        self.mask_token = nn.Parameter(torch.zeros(encoder.dim))
        self.slow, self.slow_head = frozen_copy(self.encoder), frozen_copy(self.head)
        self.slow_patch_head, self.chance = frozen_copy(self.patch_head), 2 * math.log(prototypes)

    @classmethod
    def resolve(cls, source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
        """No more prototypes than samples."""
        return at_most_samples(source, given, cls, "prototypes")

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return large and small crops."""
        return ImageViews(spec, multi_crop(spec.size, self.local, self.encoder.patch), noise=True)

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy of crops plus that of hidden patches."""
        large, mask = half_masked(batch, self.grid, self.least, self.most)
        tokens = self.encoder.tokens(large, mask=mask, mask_token=self.mask_token[None])
        pooled = [self.encoder.pool(tokens)]
        if "local" in batch:
            pooled.append(self.encoder(batch["local"].transpose(0, 1).flatten(0, 1)))
        crops = self.head(torch.cat(pooled)).unflatten(0, (-1, len(batch["x"])))
        patches = self.patch_head(tokens[:, self.encoder.prefix :][mask])
        with torch.no_grad():
            sharp = risen(*self.temperatures, self.progress, self.warm)
            of_crops, of_patches = (sinkhorn(cosines, sharp) for cosines in self._teacher(large, mask))
        crop = cross_view_entropy(of_crops.view(2, len(batch["x"]), -1), crops, self.temperature)
        patch = masked_entropy(of_patches, patches, self.temperature, mask)
        spread = torch.stack([koleo(gather(view)) for view in pooled[0].chunk(2)]).sum()
        metrics = {"crop_loss": crop.detach(), "patch_loss": patch.detach(), "koleo": spread.detach()}
        return Loss(crop + patch + self.spread * spread, metrics, self.chance)

    def _teacher(self, large: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cosines of the crops and of the hidden patches."""
        whole = self.slow.tokens(large)
        return self.slow_head(self.slow.pool(whole)), self.slow_patch_head(whole[:, self.encoder.prefix :][mask])

    def after_step(self) -> None:
        """Let the teacher follow."""
        momentum = cosine_schedule(self.momentum, 1.0, self.progress)
        for slow, fast in (
            (self.slow, self.encoder),
            (self.slow_head, self.head),
            (self.slow_patch_head, self.patch_head),
        ):
            ema_update(slow, fast, momentum)

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the crops with hidden patches; with `guess` how many the student sorts as the teacher does."""
        large, mask = half_masked(batch, self.grid, self.least, self.most)
        if not guess:
            return patch_panels(batch, mask)
        tokens = self.encoder.tokens(large, mask=mask, mask_token=self.mask_token[None]), self.slow.tokens(large)
        mine, told = (each[:, self.encoder.prefix :] for each in tokens)
        return patch_panels(batch, mask, (self.patch_head(mine), self.slow_patch_head(told)))
