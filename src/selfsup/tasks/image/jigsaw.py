"""Jigsaw (Noroozi & Favaro, 2016): put the tiles of an image back into order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from selfsup.errors import UserError
from selfsup.nn.heads import classified, mlp
from selfsup.nn.image.patches import LEAST, corners, cut, encode, mosaic, pixels, room, side_for, standardised
from selfsup.nn.noise import integers
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.tasks.image.jigsaw_permutations import permutation_set
from selfsup.views.image import Crop, ImageViews


class Jigsaw(Task):
    """Predict by which permutation the tiles of an image were mixed (Noroozi & Favaro, 2016, section 3).

    The square is cut into `grid` × `grid` cells, and a tile anywhere in each. Each tile passes the encoder alone (the
    context-free network, figure 3), then all their representations, in the mixed order, a head that tells which of
    `permutations` it was: a number for the paper's greedy set of largest Hamming distances, or agl9, pgl8 or pgammal8
    for 72, 504 or 1,512 permutations at least 8, 7 or 6 places apart, which is as far as can be for the first two.
    `tile`: pixels, by default a quarter of the image (3 × 3) and at least 8; smaller images are enlarged. `scale`:
    the least share of the image that is cut up. Encoders that take images of one size alone get the tiles enlarged.
    Chance is ln of the number of permutations.

    Counter-measures (section 4.2): `jitter` is how far a tile moves in its cell, as a share of the tile, so that no
    rim goes on in the next one; `normalize` each channel of each tile to mean 0 and deviation 1; `channel_jitter`
    moves the colour channels of a tile against each other by up to this share of it, against chromatic aberration;
    `gray`: the share of puzzles without colour; `margin`: a share of the side that is left out all around.

    Batch: `x` (B, C, H, W) float, `noise` (B,) int64. Published: VOC 2007 67.6, 53.2, segmentation 37.6; ResNet-50 with
    100 permutations, ImageNet, linear: 48.6.

    Deviations: 100 permutations by default (the paper: up to 1,000); an image is cut up at its own size (255 pixels
    there, tiles of 64); the shared fully connected layer has `hidden` / 4 units.
    """

    paper = "Noroozi & Favaro, 2016"
    section = "images: patches"
    counters = {  # noqa: RUF012
        "rim": {"jitter": 0.33},
        "colours": {"normalize": True},
        "aberration": {"channel_jitter": 0.03, "gray": 0.5},
        "residual": {"scale": 0.5, "jitter": 0.33},
        "border": {"margin": 0.1},
    }
    coupled = False
    orders: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        permutations: str = "100",
        grid: int = 3,
        tile: int = 0,
        jitter: float = 0.33,
        channel_jitter: float = 0.03,
        gray: float = 0.5,
        normalise: bool = True,
        scale: float = 0.5,
        margin: float = 0.0,
        hidden: int = 512,
    ) -> None:
        super().__init__(encoder)
        if grid not in (2, 3):
            raise UserError(f"a puzzle has 2 × 2 or 3 × 3 tiles: --grid is 2 or 3, not {grid}")
        self.grid, self.gray, self.normalise, self.scale = grid, gray, normalise, scale
        self.tile = tile or max(LEAST, 3 * encoder.spec.size // (4 * grid))
        self.apart = pixels(channel_jitter, self.tile) if encoder.spec.channels > 1 else 0
        self.jitter, self.margin = pixels(jitter, self.tile), pixels(margin, encoder.spec.size)
        self.cell = self.tile + self.jitter + self.apart
        self.size = room(encoder.spec, grid * self.cell + 2 * self.margin, given=tile > 0)
        self.side = side_for(encoder, self.tile)
        self.register_buffer("orders", torch.tensor(permutation_set(permutations, grid**2)), persistent=False)
        self.shared = nn.Sequential(nn.Linear(encoder.dim, hidden // 4), nn.ReLU(inplace=True))
        self.head = mlp(grid**2 * (hidden // 4), hidden, len(self.orders))

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return squares cut at random, some of them gray."""
        crop = Crop(self.size, scale=(self.scale, 1.0), ratio=(1.0, 1.0), gray=self.gray)
        return ImageViews(spec, {"x": crop}, noise=True)

    def puzzles(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the mixed tiles (B, grid², C, h, w), and which permutation it was (B,)."""
        x, key = batch["x"], batch["noise"]
        label = integers(key, len(self.orders))
        moved = integers(key, self.jitter + 1, 2, self.grid**2, stream=1)
        apart = integers(key, self.apart + 1, 2, self.grid**2, x.shape[1], stream=2)
        first = self.margin + integers(key, self.size - self.grid * self.cell - 2 * self.margin + 1, 2, stream=3)
        top, left = (at[..., None] for at in corners(self.orders[label], self.grid, self.cell, first, moved))
        tiles = cut(x, top + apart[:, 0], left + apart[:, 1], self.tile)
        return standardised(tiles) if self.normalise else tiles, label

    def logits(self, tiles: Tensor) -> Tensor:
        """Return how likely each permutation is (B, K)."""
        found: Tensor = self.head(self.shared(encode(self.encoder, tiles, self.side)).flatten(1))
        return found

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy of the permutation."""
        tiles, label = self.puzzles(batch)
        return classified(self.logits(tiles), label)

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the image, the puzzle and its solution, and what the guess makes of it."""
        puzzles, labels = self.puzzles(batch)
        found = [("solved", labels)] + ([("guess", self.logits(puzzles).argmax(1))] if guess else [])
        rows = []
        for i, (x, tiles) in enumerate(zip(batch["x"], puzzles, strict=True)):
            rows.append([Panel(x, "image"), Panel(mosaic(tiles, self.grid), f"permutation {int(labels[i])}")])
            for word, chosen in found:
                right = mosaic(tiles[self.orders[chosen[i]].argsort()], self.grid)
                rows[-1].append(Panel(right, f"{word}: {int(chosen[i])}"))
        return rows
