"""Relative position (Doersch et al., 2015): on which side of one patch does another lie?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from selfsup.losses import product
from selfsup.nn.heads import classified, mlp
from selfsup.nn.image import patches
from selfsup.nn.noise import integers, normal, uniform
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.image import Crop, ImageViews

NAMES = ("above left", "above", "above right", "left", "right", "below left", "below", "below right")


class RelativePosition(Task):
    """Predict the position of a patch relative to the middle one of 3 × 3 patches (Doersch et al., 2015, section 3).

    The encoder gets the middle patch and one of its 8 neighbours; a head on both representations predicts which
    neighbour it is (late fusion, section 3.1). Images that are too small for 3 × 3 patches are enlarged, and so are
    patches for encoders that take images of one size only. Chance is ln 8.

    Counter-measures (section 3.2): `gap` and `jitter`, against lines that continue across the edge; `drop`, against
    chromatic aberration; `normalize`, against similar colours; `resample`, against traces of the resolution; `border`,
    against frames.

    Batch: `x` (B, C, H, W) float, `noise` (B,) int64.
    Published: VOC 2007 classification 65.3, detection 51.1.

    Deviations: one pair of patches for each image and step, encoded at the size at which they were cut (the paper: 96
    pixels). Images without exactly 3 channels keep them all. The paper subtracts only the mean of a patch.

    Args:
        patch_size: Side of a patch in pixels; 0: a quarter of the image's and at least 8, in [0, inf).
        gap: Distance between patches, as a fraction of a patch, in [0, inf).
        jitter: Largest shift of each patch in each direction, as a fraction of a patch, in [0, inf).
        drop: Whether one random channel of each patch is kept and the others are replaced by noise.
        normalize: Whether each channel of each patch gets mean 0 and standard deviation 1.
        resample: Probability that a patch is shrunk, to a tenth of its side but two pixels at least, and enlarged
            again, in [0, 1].
        min_scale: Smallest area of the square that holds the patches, as a fraction of the image, in (0, 1].
        border: Width of the border that is left out all around, as a fraction of the side, in [0, 1/2).
        hidden_dim: Width of the hidden layer of the head, in [1, inf).
    """

    paper = "Doersch et al., 2015"
    section = "images: patches"
    counters = {  # noqa: RUF012
        "rim": {"gap": 0.5, "jitter": 0.07},
        "colours": {"normalize": True},
        "aberration": {"drop": True},
        "residual": {"resample": 0.33, "min_scale": 0.5, "jitter": 0.25},
        "border": {"border": 0.1},
    }
    coupled = False
    operators: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        patch_size: int = 0,
        gap: float = 0.5,
        jitter: float = 0.07,
        drop: bool = True,
        normalize: bool = True,
        resample: float = 0.33,
        min_scale: float = 0.5,
        border: float = 0.0,
        hidden_dim: int = 256,
    ) -> None:
        super().__init__(encoder)
        self.patch_size = patch_size or max(patches.LEAST, encoder.spec.size // 4)
        self.gap, self.jitter = patches.pixels(gap, self.patch_size), patches.pixels(jitter, self.patch_size)
        self.extent = 3 * self.patch_size + 2 * self.gap + 2 * self.jitter
        self.border = patches.pixels(border, encoder.spec.size)
        self.size = patches.room(encoder.spec, self.extent + 2 * self.border, given=patch_size > 0)
        self.drop, self.normalize, self.resample, self.min_scale = drop, normalize, resample, min_scale
        self.side = patches.side_for(encoder, self.patch_size)
        self.register_buffer(
            "operators", patches.resamplers(self.patch_size, max(2, math.ceil(self.patch_size / 10))), persistent=False
        )
        self.head = mlp(2 * encoder.dim, hidden_dim, len(NAMES))

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return random square crops."""
        return ImageViews(spec, {"x": Crop(self.size, scale=(self.min_scale, 1.0), ratio=(1.0, 1.0))}, noise=True)

    def pairs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the middle patch and a neighbour (B, 2, C, h, w), and the position of the neighbour (B,)."""
        x, key = batch["x"], batch["noise"]
        label = integers(key, len(NAMES))
        cell = torch.stack([torch.full_like(label, 4), label + (label >= 4).long()], 1)
        moved = integers(key, 2 * self.jitter + 1, 2, 2, stream=1)
        first = self.border + integers(key, self.size - self.extent - 2 * self.border + 1, 2, stream=2)
        top, left = patches.corners(cell, 3, self.patch_size + self.gap, first, moved)
        kept = integers(key, 3, 2, stream=5) if self.drop and x.shape[1] == 3 else None
        pair = patches.cut(x, top, left, self.patch_size, kept)
        same = len(self.operators) - 1
        which = integers(key, max(1, same), 2, stream=3)
        which = torch.where(uniform(key, 2, stream=4) < self.resample, which, same)
        a = self.operators[which][:, :, None]
        pair = product(product(a, pair), a.mT)
        pair = patches.standardised(pair) if self.normalize else pair
        if kept is not None:
            pair = patches.one_colour(pair, kept, normal(key, 2, 2, self.patch_size, self.patch_size, stream=6))
        return pair, label

    def logits(self, pair: Tensor) -> Tensor:
        """Return the logits of the 8 positions (B, 8)."""
        return self.head(patches.encode(self.encoder, pair, self.side).flatten(1))

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy of the position."""
        pair, label = self.pairs(batch)
        return classified(self.logits(pair), label)

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the image, both patches, and these in place; with `guess` also in the predicted place."""
        pairs, labels = self.pairs(batch)
        guesses = self.logits(pairs).argmax(1).tolist() if guess else [None] * len(pairs)
        rows = []
        for x, pair, label, guessed in zip(batch["x"], pairs, labels.tolist(), guesses, strict=True):
            row = [Panel(x, "image"), Panel(pair[0], "middle"), Panel(pair[1], "neighbour")]
            rows.append([*row, Panel(patches.put_together(pair, label), NAMES[label])])
            if guessed is not None:
                rows[-1].append(Panel(patches.put_together(pair, guessed), f"guess: {NAMES[guessed]}"))
        return rows
