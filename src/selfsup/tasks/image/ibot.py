"""iBOT (Zhou et al., 2022): DINO, and the same question for every hidden patch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from selfsup.losses import cross_view_entropy
from selfsup.nn.distributed import sum_over_ranks
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


class IBOT(Task):
    """Predict a slow teacher's prototypes of other crops, and of the patches that are hidden (Zhou et al., 2022).

    As in DINO, the student predicts the teacher's softmax over prototypes for every other crop of the image. In one
    of the two large crops it sees a mask token in the place of the share `least` to `most` of the patches, in blocks,
    and predicts for each what the teacher, who sees it, makes of it. Both questions share the head and weigh the same;
    each has its own centre. Chance is 2 ln K.

    Batch: `x` (B, 2, C, H, W) and `local` (B, L, C, h, w) float; `noise` (B,) int64, from which the masks are drawn.
    Published: ImageNet, ViT-S/16 linear 77.9%, 20-NN 75.2%.

    Deviations: 1,024 prototypes (the paper 8,192), 6 small crops (10), momentum from 0.99 (0.996). One crop of each
    image is masked (the paper: each with probability 0.5). The crop's question is put to the pooled output, a mean of
    the patches for an encoder without a class token. The centre of the patches is that of the hidden ones alone.
    """

    paper = "Zhou et al., 2022"
    section = "images: distillation"
    default_encoder = "vit"
    small_encoder = "vit-mini"
    defaults = {"lr": 1e-3, "weight_decay": 0.04, "warmup": 0.1, "clip": 3.0}  # noqa: RUF012
    centres: Tensor  # (2, K): of crops, of patches

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
        centre_momentum: float = 0.9,
    ) -> None:
        super().__init__(encoder)
        self.grid = grid_of(encoder)
        check_options(student_temperature, teacher_temperature, first_temperature, least=least, most=most)
        self.local, self.least, self.most = local, least, most
        self.temperature, self.temperatures = student_temperature, (first_temperature, teacher_temperature)
        self.warm, self.momentum, self.centre_momentum = warm, momentum, centre_momentum
        self.head = prototype_head(encoder.dim, hidden, dim, prototypes)
        self.mask_token = nn.Parameter(torch.zeros(encoder.dim))
        self.slow, self.slow_head = frozen_copy(self.encoder), frozen_copy(self.head)
        self.register_buffer("centres", torch.zeros(2, prototypes))
        self.seen: tuple[Tensor, Tensor] | None = None

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
        patches = self.head(tokens[:, self.encoder.prefix :][mask])
        with torch.no_grad():
            sharp = risen(*self.temperatures, self.progress, self.warm)
            self.seen = self._teacher(large, mask)
            of_crops, of_patches = (((z - c) / sharp).softmax(1) for z, c in zip(self.seen, self.centres, strict=True))
        crop = cross_view_entropy(of_crops.view(2, len(batch["x"]), -1), crops, self.temperature)
        patch = masked_entropy(of_patches, patches, self.temperature, mask)
        entropy = torch.special.entr(of_crops).sum(1).mean()
        metrics = {"crop_loss": crop.detach(), "patch_loss": patch.detach(), "entropy": entropy}
        return Loss(crop + patch, metrics, 2 * math.log(self.centres.shape[1]))

    def _teacher(self, large: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cosines of the crops and of the hidden patches."""
        whole = self.slow.tokens(large)
        return self.slow_head(self.slow.pool(whole)), self.slow_head(whole[:, self.encoder.prefix :][mask])

    def after_step(self) -> None:
        """Let the teacher and its centres follow."""
        momentum = cosine_schedule(self.momentum, 1.0, self.progress)
        ema_update(self.slow, self.encoder, momentum)
        ema_update(self.slow_head, self.head, momentum)
        assert self.seen is not None
        for centre, cosines in zip(self.centres, self.seen, strict=True):
            count = sum_over_ranks(cosines.new_full((), len(cosines)))
            centre.lerp_(sum_over_ranks(cosines.sum(0)) / count, 1 - self.centre_momentum)
        self.seen = None

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the crops with hidden patches; with `guess` how many the student sorts as the teacher does."""
        large, mask = half_masked(batch, self.grid, self.least, self.most)
        if not guess:
            return patch_panels(batch, mask)
        tokens = self.encoder.tokens(large, mask=mask, mask_token=self.mask_token[None]), self.slow.tokens(large)
        mine, told = (each[:, self.encoder.prefix :] for each in tokens)
        return patch_panels(batch, mask, (self.head(mine), self.slow_head(told)))
