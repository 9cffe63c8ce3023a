"""I-JEPA (Assran et al., 2023): predict the features of masked blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.errors import UserError
from selfsup.losses import full
from selfsup.nn import noise
from selfsup.nn.ema import Momentum, ema_update, frozen_copy
from selfsup.nn.image.mask_decoder import MaskDecoder, similarity, spread
from selfsup.nn.image.masks import grid_of, mask_of, only, places_of, rectangles, take
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.image import Crop, ImageViews


class IJEPA(Task):
    """Predict an EMA encoder's tokens of masked blocks from the visible patches (Assran et al., 2023, section 3).

    The target blocks lie anywhere in the image. The context encoder sees the patches outside all of them; a narrow
    predictor predicts one block at a time. The target encoder, an EMA of the context encoder, sees the whole image;
    its tokens pass a LayerNorm without weights. The loss is smooth L1. There is no chance value; watch `target_spread`:
    it is 1 if the targets differ among images as much as possible, and 0 if they have collapsed to one. `start_left` is
    the weight of the random start in the target encoder, which is kept, as in the paper.

    Batch: `x` (B, C, H, W) float; `noise` (B,) int64, from which the blocks are drawn.
    Published: ImageNet linear, ViT-H/14 79.3%.

    Deviations: all blocks have the same number of patches and an aspect ratio of 3:4 or 4:3, at random (the paper: 0.15
    to 0.2 of the image, 3:4 to 4:3). The context is drawn at random from all patches outside the blocks, as many as
    always remain (the paper: from a block of 0.85 to 1 of the image, and a batch is cut to its shortest context).

    Args:
        num_targets: Target blocks of each image, in [1, inf).
        target_scale: Area of a target block as a fraction of the image; 0.15 to 0.2 in the paper, in (0, 1).
        momentum: Momentum of the target encoder at the start; it rises linearly to 1. By default from the number of
            steps: 0.97 for up to 1,333, 0.99 for 4,000, 0.996 from 10,000 on; 0.996 in the paper, in [0, 1].
        predictor_dim: Width of the predictor, a multiple of 4; 384 in the paper, in [4, inf).
        predictor_depth: Blocks of the predictor; 6 to 12 in the paper, in [1, inf).
        min_scale: Smallest area of a crop as a fraction of the image, in (0, 1].
    """

    paper = "Assran et al., 2023"
    section = "images: masked"
    default_encoder = "vit"
    small_encoder = "vit-mini"
    defaults = {"lr": 1e-3, "warmup": 0.1}  # noqa: RUF012
    coupled = False

    def __init__(
        self,
        encoder: Encoder,
        *,
        num_targets: int = 4,
        target_scale: float = 0.175,
        momentum: float | None = None,
        predictor_dim: int = 64,
        predictor_depth: int = 3,
        min_scale: float = 0.3,
    ) -> None:
        super().__init__(encoder)
        self.grid = grid_of(encoder)
        self.short, self.long = (round(self.grid * (target_scale * ratio) ** 0.5) for ratio in (3 / 4, 4 / 3))
        self.visible = self.grid**2 - num_targets * self.short * self.long
        if not (num_targets > 0 and self.short > 0 and self.visible > 0):
            raise UserError(
                f"--num-targets {num_targets} with --target-scale {target_scale} leave no patch visible, or mask none"
            )
        self.num_targets, self.min_scale, self.momentum = num_targets, min_scale, Momentum(momentum, linear=True)
        self.predictor = MaskDecoder(encoder.dim, self.grid, encoder.dim, width=predictor_dim, depth=predictor_depth)
        self.target_encoder = frozen_copy(self.encoder)

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return crops, without flips or colour changes."""
        return ImageViews(spec, {"x": Crop(spec.size, scale=(self.min_scale, 1), bicubic=True)}, noise=True)

    def loss(self, batch: Batch) -> Loss:
        """Return the error of the predicted tokens."""
        predicted, target, _, _ = self._predict(batch)
        return Loss(F.smooth_l1_loss(predicted, target), {"target_spread": spread(target), **self.momentum.metrics()})

    def _predict(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return predicted and target tokens (B, num_targets · K, dim), and the context and target patches."""
        x = batch["x"]
        context, masked = self._choose(batch["noise"])
        with torch.no_grad():
            states = full(self.target_encoder.tokens(x)[:, self.encoder.prefix :])
            target = F.layer_norm(take(states, masked.flatten(1)), states.shape[2:])
        tokens = self.encoder.tokens(x, context)
        each = (part.repeat_interleave(self.num_targets, 0) for part in (tokens, context))
        predicted = self.predictor(*each, masked.flatten(0, 1))
        return predicted.view(target.shape), target, context, masked

    def _choose(self, key: Tensor) -> tuple[Tensor, Tensor]:
        """Return the patches of the context (B, visible) and of the target blocks (B, num_targets, K)."""
        landscape = noise.uniform(key, self.num_targets) < 0.5
        height = torch.where(landscape, self.short, self.long)
        blocks = rectangles(key, height, self.short + self.long - height, self.grid, stream=1)
        order = blocks.any(1) + noise.uniform(key, self.grid**2, stream=2)
        return order.argsort(1)[:, : self.visible], places_of(blocks, self.short * self.long)

    def after_step(self) -> None:
        """Update the target encoder."""
        ema_update(self.target_encoder, self.encoder, self.momentum.advance(self.progress, self.steps))

    def representation(self) -> Encoder:
        """Return the target encoder; `encoder` is the context encoder."""
        return self.target_encoder

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the context and the targets of each image; with `guess` the similarity of the predicted tokens."""
        x, count = batch["x"], self.grid**2
        predicted, target, context, masked = self._predict(batch)
        blocks = f"targets: {self.num_targets} blocks of {self.short} × {self.long} patches"
        seen, targets = only(x, mask_of(context, count)), only(x, mask_of(masked.flatten(1), count))
        return [
            [
                Panel(seen[row], f"context: {self.visible} of {count} patches"),
                Panel(targets[row], f"{blocks}; cosine {value:.2f}" if guess else blocks),
                Panel(x[row], "image"),
            ]
            for row, value in enumerate(similarity(predicted, target))
        ]
