"""data2vec 2.0 (Baevski et al., 2022): predict contextual targets of an EMA encoder, for several masks at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.errors import UserError
from selfsup.losses import full
from selfsup.nn.ema import ema_update, frozen_copy
from selfsup.nn.image.mask_decoder import Mix
from selfsup.nn.image.masks import covered_first, grid_of, mask_of, only, rectangles
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.image import Crop, ImageViews


class Data2Vec(Task):
    """Predict at hidden patches the mean of an EMA encoder's last layers (Baevski et al., 2022, sections 3.1 to 3.3).

    The EMA encoder sees the whole image once, for `masks` masks of it. A mask keeps blocks of `block` of the side
    and hides the share `masked` (inverse block masking); the encoder works on what is kept alone. A few convolutions
    fill the rest of the grid. The target is the mean over the last blocks, all but the first `skip`, each normalized
    over the patches of an image. The loss is the mean square error at hidden patches: chance is about the variance of
    the target, `blind`, which must not fall to 0.

    Batch: `x` (B, C, H, W) float; `noise` (B,) int64, from which the masks are drawn.
    Published: ImageNet, ViT-B fine-tuned 84.5%.

    Deviations: 4 masks, not 8 to 16; `depth` convolutions in the decoder, not 6; hidden places start as zeros, not as
    faint noise; no loss of a class token. The momentum rises from 0.99 to 1 for trainings of some thousand steps; the
    paper's from 0.9998 to 0.99999 in hundreds of thousands.
    """

    paper = "Baevski et al., 2022"
    section = "images: masked"
    default_encoder = "vit"
    small_encoder = "vit-mini"
    defaults = {"lr": 1e-3, "warmup": 0.1, "clip": 4.0}  # noqa: RUF012
    coupled = False

    def __init__(
        self,
        encoder: Encoder,
        *,
        masked: float = 0.8,
        block: float = 3 / 14,
        masks: int = 4,
        skip: int = 2,
        depth: int = 4,
        momentum: float = 0.99,
        least: float = 0.35,
        flip: float = 0.5,
    ) -> None:
        super().__init__(encoder)
        self.grid = grid_of(encoder)
        self.kept = round(self.grid**2 * (1 - masked))
        if not (0 < self.kept < self.grid**2 and masks > 0):
            raise UserError(f"--masked {masked} leaves {self.kept} of {self.grid**2} patches, --masks is at least 1")
        self.side, self.masks = max(1, round(block * self.grid)), masks
        self.last = max(1, self.encoder.depth - skip)
        self.momentum, self.least, self.flip = momentum, least, flip
        self.decoder = nn.Sequential(*(Mix(encoder.dim) for _ in range(depth)))
        self.out = nn.Linear(encoder.dim, encoder.dim)
        nn.init.normal_(self.out.weight, std=0.02)
        self.slow = frozen_copy(self.encoder)

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return crops of at least the share `least` of the image, perhaps mirrored."""
        return ImageViews(spec, {"x": Crop(spec.size, scale=(self.least, 1), flip=self.flip)}, noise=True)

    def loss(self, batch: Batch) -> Loss:
        """Return the error at the hidden patches of all masks."""
        predicted, target, keep = self._predict(batch)
        hidden = ~mask_of(keep, self.grid**2)
        value = (predicted - target).square().mean(2)[hidden].mean()
        return Loss(value, {"blind": target[hidden].var(0).mean()})

    def _predict(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return (B · masks, N, dim) predicted and wanted, and the patches kept (B · masks, kept)."""
        keep = self._choose(batch["noise"])
        with torch.no_grad():
            layers = [full(layer).transpose(1, 2) for layer in self.slow.layers(batch["x"], self.last)]
            target = torch.stack([F.instance_norm(layer) for layer in layers]).mean(0).transpose(1, 2)
        tokens = self.encoder.tokens(batch["x"].repeat_interleave(self.masks, 0), keep)[:, self.encoder.prefix :]
        place = keep[..., None].expand(-1, -1, tokens.shape[2])
        grid = tokens.new_zeros(len(tokens), self.grid**2, tokens.shape[2]).scatter(1, place, tokens)
        filled = self.decoder(grid.transpose(1, 2).unflatten(2, (self.grid, self.grid))).flatten(2).transpose(1, 2)
        return full(self.out(filled)), target.repeat_interleave(self.masks, 0), keep

    def _choose(self, key: Tensor) -> Tensor:
        """Return the patches that each mask keeps: blocks, as many as it takes."""
        kept = []
        for mask in range(self.masks):
            side = torch.full((len(key), self.grid), self.side, device=key.device)
            blocks = rectangles(key, side, side, self.grid, stream=2 * mask)
            kept.append(covered_first(blocks, key, stream=2 * mask + 1).argsort(1)[:, : self.kept])
        return torch.stack(kept, 1).flatten(0, 1)

    def after_step(self) -> None:
        """Let the EMA encoder follow."""
        ema_update(self.slow, self.encoder, self.momentum + (1 - self.momentum) * self.progress)

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return what each mask keeps of each image; with `guess` how much is known of the rest."""
        x = batch["x"].repeat_interleave(self.masks, 0)
        predicted, target, keep = self._predict(batch)
        seen = mask_of(keep, self.grid**2)
        known = F.cosine_similarity(predicted, target, 2).mul(~seen).sum(1) / (~seen).sum(1)
        kept = f"mask keeps {self.kept} of {self.grid**2} patches"
        captions = [f"{kept}; cosine {value:.2f}" if guess else kept for value in known.tolist()]
        panels = [Panel(image, caption) for image, caption in zip(only(x, seen), captions, strict=True)]
        whole = [Panel(image, "the image") for image in batch["x"]]
        return [[whole[row], *panels[self.masks * row : self.masks * (row + 1)]] for row in range(len(whole))]
