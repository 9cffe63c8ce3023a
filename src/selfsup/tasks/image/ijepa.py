"""I-JEPA (Assran et al., 2023): predict what an EMA encoder makes of hidden blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.errors import UserError
from selfsup.losses import full
from selfsup.nn import noise
from selfsup.nn.ema import ema_update, frozen_copy
from selfsup.nn.image.mask_decoder import MaskDecoder
from selfsup.nn.image.masks import grid_of, mask_of, only, places_of, rectangles, take
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.image import Crop, ImageViews


class IJEPA(Task):
    """Predict the tokens of hidden blocks, as an EMA encoder that sees them makes them (Assran et al., 2023).

    `targets` blocks, each of the share `scale` of the image, lie anywhere in it. The encoder sees the patches in
    none of them; a narrow predictor is asked for one block at a time. The EMA encoder, which follows with a momentum
    that rises from `momentum` to 1, sees the whole image; its tokens are normalized by a LayerNorm without weights.
    Smooth L1. There is no chance value; watch `target_spread`: 1 for targets that differ among images as much as can
    be, 0 when they have become one.

    Batch: `x` (B, C, H, W) float; `noise` (B,) int64, from which the blocks are drawn.
    Published: ImageNet linear, ViT-H/14 79.3%.

    Deviations: all blocks have the same number of patches, of the shape 3:4 or 4:3 at random (the paper: 0.15 to 0.2
    of the image, 3:4 to 4:3). The context is drawn from all patches outside of the blocks (the paper: of a block of
    0.85 to 1), as many as the blocks always leave, at random; the paper cuts a batch to its shortest context. The
    predictor is `depth` blocks of `width` (the paper 6 to 12 of 384), and momentum starts at 0.99, not 0.996, for
    trainings of some thousand steps.
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
        targets: int = 4,
        scale: float = 0.175,
        momentum: float = 0.99,
        width: int = 64,
        depth: int = 3,
        least: float = 0.3,
    ) -> None:
        super().__init__(encoder)
        self.grid = grid_of(encoder)
        self.high, self.wide = (round(self.grid * (scale * shape) ** 0.5) for shape in (3 / 4, 4 / 3))
        self.kept = self.grid**2 - targets * self.high * self.wide
        if not (targets > 0 and self.high > 0 and self.kept > 0):
            raise UserError(f"--targets {targets} of --scale {scale} leave no patch to see, or hide none")
        self.targets, self.momentum, self.least = targets, momentum, least
        self.predictor = MaskDecoder(encoder.dim, self.grid, encoder.dim, width=width, depth=depth)
        self.slow = frozen_copy(self.encoder)

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return crops alone: no colour is changed and nothing mirrored."""
        return ImageViews(spec, {"x": Crop(spec.size, scale=(self.least, 1), bicubic=True)}, noise=True)

    def loss(self, batch: Batch) -> Loss:
        """Return the error of the tokens of all blocks."""
        predicted, target, _, _ = self._predict(batch)
        spread = (target.var(0, correction=0).mean() / target.var(correction=0)).sqrt()
        return Loss(F.smooth_l1_loss(predicted, target), {"target_spread": spread})

    def _predict(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return tokens predicted and those wanted (B, targets · K, dim), the patches seen, and those of the blocks."""
        x = batch["x"]
        keep, asked = self._choose(batch["noise"])
        with torch.no_grad():
            states = full(self.slow.tokens(x)[:, self.encoder.prefix :])
            target = F.layer_norm(take(states, asked.flatten(1)), states.shape[2:])
        tokens = self.encoder.tokens(x, keep)
        each = (part.repeat_interleave(self.targets, 0) for part in (tokens, keep))
        predicted = full(self.predictor(*each, asked.flatten(0, 1)))
        return predicted.view(target.shape), target, keep, asked

    def _choose(self, key: Tensor) -> tuple[Tensor, Tensor]:
        """Return the patches seen (B, kept) and those of the blocks (B, targets, patches of a block)."""
        lies = noise.uniform(key, self.targets) < 0.5
        high = torch.where(lies, self.high, self.wide)
        blocks = rectangles(key, high, self.high + self.wide - high, self.grid, stream=1)
        order = blocks.any(1) + noise.uniform(key, self.grid**2, stream=2)
        return order.argsort(1)[:, : self.kept], places_of(blocks, self.high * self.wide)

    def after_step(self) -> None:
        """Let the EMA encoder follow."""
        ema_update(self.slow, self.encoder, self.momentum + (1 - self.momentum) * self.progress)

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return what is seen of each image and what is asked; with `guess` how much is known of it."""
        x, count = batch["x"], self.grid**2
        predicted, target, keep, asked = self._predict(batch)
        blocks = f"asked: {self.targets} blocks of {self.high} × {self.wide} patches"
        known = F.cosine_similarity(predicted - target.mean((0, 1)), target - target.mean((0, 1)), 2).mean(1)
        seen, hidden = only(x, mask_of(keep, count)), only(x, mask_of(asked.flatten(1), count))
        return [
            [
                Panel(seen[row], f"sees {self.kept} of {count}"),
                Panel(hidden[row], f"{blocks}; cosine {value:.2f}" if guess else blocks),
                Panel(x[row], "the image"),
            ]
            for row, value in enumerate(known.tolist())
        ]
