"""Relative position (Doersch et al., 2015): where does one patch lie, seen from another?"""

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
    """Predict where a patch lies, seen from the middle one of 3 × 3 patches (Doersch et al., 2015, section 3).

    The middle patch and one of its 8 neighbours pass the same encoder; a head on both representations tells which
    neighbour it was (late fusion, section 3.1). `patch`: pixels, by default a quarter of the image and at least 8;
    images too small for 3 × 3 of these are enlarged, and patches for encoders that take one size alone. `scale`: the
    least share of the image in which the 3 × 3 lie. Chance is ln 8.

    Counter-measures (section 3.2): `gap` between patches and `jitter` of each by up to so much, shares of a patch,
    against lines that go on across the rim; `drop` keeps one channel of a patch, and the others become noise, against
    chromatic aberration; `normalize` each channel of each patch to mean 0 and deviation 1, against colours that are
    alike; `resample` is the share of patches that are shrunk to as little as half a side and enlarged again, against
    what shows the resolution. `margin`, a share of the side, is left out all around, against frames.

    Batch: `x` (B, C, H, W) float, `noise` (B,) int64. Published: VOC 2007 classification 65.3, detection 51.1.

    Deviations: one pair of patches an image and step, as large for the encoder as in the image (the paper: 96
    pixels). Images of other than 3 channels keep them all. The paper's patches lose the mean alone.
    """

    paper = "Doersch et al., 2015"
    section = "images: patches"
    counters = {  # noqa: RUF012
        "rim": {"gap": 0.5, "jitter": 0.07},
        "colours": {"normalize": True},
        "aberration": {"drop": True},
        "residual": {"resample": 0.33, "scale": 0.5, "jitter": 0.25},
        "border": {"margin": 0.1},
    }
    coupled = False
    operators: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        patch: int = 0,
        gap: float = 0.5,
        jitter: float = 0.07,
        drop: bool = True,
        normalise: bool = True,
        resample: float = 0.33,
        scale: float = 0.5,
        margin: float = 0.0,
        hidden: int = 256,
    ) -> None:
        super().__init__(encoder)
        self.patch = patch or max(patches.LEAST, encoder.spec.size // 4)
        self.gap, self.jitter = patches.pixels(gap, self.patch), patches.pixels(jitter, self.patch)
        self.extent = 3 * self.patch + 2 * self.gap + 2 * self.jitter
        self.margin = patches.pixels(margin, encoder.spec.size)
        self.size = patches.room(encoder.spec, self.extent + 2 * self.margin, given=patch > 0)
        self.drop, self.normalise, self.resample, self.scale = drop, normalise, resample, scale
        self.side = patches.side_for(encoder, self.patch)
        self.register_buffer("operators", patches.resamplers(self.patch, math.ceil(self.patch / 2)), persistent=False)
        self.head = mlp(2 * encoder.dim, hidden, len(NAMES))

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return squares cut at random."""
        return ImageViews(spec, {"x": Crop(self.size, scale=(self.scale, 1.0), ratio=(1.0, 1.0))}, noise=True)

    def pairs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the middle patch and a neighbour (B, 2, C, h, w), and which one it is (B,)."""
        x, key = batch["x"], batch["noise"]
        label = integers(key, len(NAMES))
        cell = torch.stack([torch.full_like(label, 4), label + (label >= 4).long()], 1)
        moved = integers(key, 2 * self.jitter + 1, 2, 2, stream=1)
        first = self.margin + integers(key, self.size - self.extent - 2 * self.margin + 1, 2, stream=2)
        top, left = patches.corners(cell, 3, self.patch + self.gap, first, moved)
        kept = integers(key, 3, 2, stream=5) if self.drop and x.shape[1] == 3 else None
        pair = patches.cut(x, top, left, self.patch, kept)
        kind = integers(key, len(self.operators), 2, stream=3)
        kind = torch.where(uniform(key, 2, stream=4) < self.resample, kind, len(self.operators) - 1)
        a = self.operators[kind][:, :, None]
        pair = product(product(a, pair), a.mT)
        pair = patches.standardised(pair) if self.normalise else pair
        if kept is not None:
            pair = patches.one_colour(pair, kept, normal(key, 2, 2, self.patch, self.patch, stream=6))
        return pair, label

    def logits(self, pair: Tensor) -> Tensor:
        """Return how likely each neighbour is (B, 8)."""
        found: Tensor = self.head(patches.encode(self.encoder, pair, self.side).flatten(1))
        return found

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy of the neighbour."""
        pair, label = self.pairs(batch)
        return classified(self.logits(pair), label)

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the image, the two patches, and the neighbour put where it belongs, and where it is guessed."""
        pairs, labels = self.pairs(batch)
        guesses = self.logits(pairs).argmax(1).tolist() if guess else [None] * len(pairs)
        rows = []
        for x, pair, label, guessed in zip(batch["x"], pairs, labels.tolist(), guesses, strict=True):
            row = [Panel(x, "image"), Panel(pair[0], "middle"), Panel(pair[1], "neighbour")]
            rows.append([*row, Panel(patches.put_together(pair, label), NAMES[label])])
            if guessed is not None:
                rows[-1].append(Panel(patches.put_together(pair, guessed), f"guess: {NAMES[guessed]}"))
        return rows
