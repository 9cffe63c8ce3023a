"""data2vec 2.0 (Baevski et al., 2022): predict contextual targets of an EMA encoder, for several masks at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.errors import UserError
from selfsup.losses import full
from selfsup.nn.ema import Momentum, ema_update, frozen_copy
from selfsup.nn.image.masks import covered_first, grid_of, mask_of, only, rectangles
from selfsup.nn.norm import mean_of_layers
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.tasks.image.data2vec_decoder import Mix
from selfsup.views.image import Crop, ImageViews


class Data2Vec(Task):
    """Predict a teacher's mean over its last layers at masked patches (Baevski et al., 2022, sections 3.1 to 3.3).

    The teacher, an EMA of the encoder, sees the whole image once; the encoder sees `num_masks` masked versions of it,
    and only their visible patches, which form blocks (inverse block masking). A few convolutions fill the rest of the
    grid. As in the authors' code, the target averages the outputs of the MLPs of the teacher's last blocks before they
    are added to the tokens, each normalized over the patches of an image (InstanceNorm), and passes a LayerNorm without
    weights. The loss is the mean squared error at masked patches. Chance is about the variance of the target, the
    metric `blind`, which must not fall to 0. `start_left` is the weight of the random start in the teacher. The encoder
    itself is kept, as in the paper.

    Batch: `x` (B, C, H, W) float; `noise` (B,) int64, the key of the masks.
    Published: ImageNet, ViT-B fine-tuned 84.5%.
    Deviations: fewer masks and decoder layers; masked positions start as zeros, not as faint noise; no class token
    loss; blocks normalize before attention and MLP (the paper: after).

    Args:
        mask_ratio: Fraction of the patches that are masked, in (0, 1).
        block_size: Side of a visible block, as a fraction of the image's side, in (0, 1].
        num_masks: Masks of each image; 8 to 16 in the paper, in [1, inf).
        skip_layers: First blocks of the teacher that the target leaves out, in [0, inf).
        decoder_depth: Convolutions of the decoder; 6 in the paper, in [1, inf).
        momentum: Momentum of the teacher at the start; it rises linearly to 1. By default from the number of steps:
            0.97 for up to 1,333, 0.99 for 4,000, 0.996 from 10,000 on. In the paper from 0.9998 to 0.99999 within the
            first 100,000 of 375,000, in [0, 1].
        min_scale: Minimum fraction of the image's area in the crop, in (0, 1].
        flip: Probability of a horizontal flip, in [0, 1].
    """

    paper = "Baevski et al., 2022"
    section = "images: masked"
    default_encoder = "vit"
    small_encoder = "vit-mini"
    defaults = {"lr": 1e-3, "betas": (0.9, 0.95), "warmup": 0.1, "clip": 4.0}  # noqa: RUF012
    coupled = False

    def __init__(
        self,
        encoder: Encoder,
        *,
        mask_ratio: float = 0.8,
        block_size: float = 3 / 14,
        num_masks: int = 4,
        skip_layers: int = 2,
        decoder_depth: int = 4,
        momentum: float | None = None,
        min_scale: float = 0.35,
        flip: float = 0.5,
    ) -> None:
        super().__init__(encoder)
        self.grid = grid_of(encoder)
        self.kept = round(self.grid**2 * (1 - mask_ratio))
        if not 0 < self.kept < self.grid**2:
            raise UserError(f"--mask-ratio {mask_ratio} leaves {self.kept} of {self.grid**2} patches")
        self.side, self.num_masks = max(1, round(block_size * self.grid)), num_masks
        self.last = max(1, self.encoder.depth - skip_layers)
        self.momentum, self.min_scale, self.flip = Momentum(momentum, linear=True), min_scale, flip
        self.decoder = nn.Sequential(*(Mix(encoder.dim) for _ in range(decoder_depth)))
        self.out = nn.Linear(encoder.dim, encoder.dim)
        nn.init.normal_(self.out.weight, std=0.02)
        self.teacher = frozen_copy(self.encoder)

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return random crops, some of them flipped."""
        return ImageViews(spec, {"x": Crop(spec.size, scale=(self.min_scale, 1), flip=self.flip)}, noise=True)

    def loss(self, batch: Batch) -> Loss:
        """Return the mean squared error at the masked patches of all masks."""
        predicted, target, keep = self._predict(batch)
        masked = ~mask_of(keep, self.grid**2)
        value = (predicted - target).square().mean(2)[masked].mean()
        return Loss(value, {"blind": target[masked].var(0).mean(), **self.momentum.metrics()})

    def _predict(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return prediction and target (B · num_masks, N, dim), and the visible patches (B · num_masks, kept)."""
        keep = self._choose(batch["noise"])
        with torch.no_grad():
            target = mean_of_layers(self.teacher.mlp_outputs(batch["x"], self.last))
            target = F.layer_norm(target, target.shape[2:])
        tokens = self.encoder.tokens(batch["x"].repeat_interleave(self.num_masks, 0), keep)[:, self.encoder.prefix :]
        place = keep[..., None].expand(-1, -1, tokens.shape[2])
        grid = tokens.new_zeros(len(tokens), self.grid**2, tokens.shape[2]).scatter(1, place, tokens)
        filled = self.decoder(grid.transpose(1, 2).unflatten(2, (self.grid, self.grid))).flatten(2).transpose(1, 2)
        return full(self.out(filled)), target.repeat_interleave(self.num_masks, 0), keep

    def _choose(self, key: Tensor) -> Tensor:
        """Return the patches that are visible under each mask, in as many blocks as it takes."""
        kept = []
        for mask in range(self.num_masks):
            side = torch.full((len(key), self.grid), self.side, device=key.device)
            blocks = rectangles(key, side, side, self.grid, stream=2 * mask)
            kept.append(covered_first(blocks, key, stream=2 * mask + 1).argsort(1)[:, : self.kept])
        return torch.stack(kept, 1).flatten(0, 1)

    def after_step(self) -> None:
        """Update the teacher."""
        ema_update(self.teacher, self.encoder, self.momentum.advance(self.progress, self.steps))

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the visible patches of each mask; with `guess` the cosine of prediction and target elsewhere."""
        x = batch["x"].repeat_interleave(self.num_masks, 0)
        predicted, target, keep = self._predict(batch)
        seen = mask_of(keep, self.grid**2)
        cosine = F.cosine_similarity(predicted, target, 2).mul(~seen).sum(1) / (~seen).sum(1)
        kept = f"{self.kept} of {self.grid**2} patches visible"
        captions = [f"{kept}; cosine {value:.2f}" if guess else kept for value in cosine.tolist()]
        panels = [Panel(image, caption) for image, caption in zip(only(x, seen), captions, strict=True)]
        whole, count = [Panel(image, "the image") for image in batch["x"]], self.num_masks
        return [[whole[row], *panels[count * row : count * (row + 1)]] for row in range(len(whole))]
