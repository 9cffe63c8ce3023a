"""Jigsaw (Noroozi & Favaro, 2016): put the shuffled tiles of an image back in order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from selfsup.nn.heads import classified, mlp
from selfsup.nn.image.patches import LEAST, corners, cut, encode, mosaic, pixels, room, side_for, standardised
from selfsup.nn.noise import integers
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.tasks.image.jigsaw_permutations import permutation_set
from selfsup.views.image import Crop, ImageViews


class Jigsaw(Task):
    """Predict by which permutation the tiles of an image were shuffled (Noroozi & Favaro, 2016, section 3).

    A square is divided into `grid` × `grid` cells, and a tile is cut at random from each. The encoder gets each tile on
    its own (the context-free network, figure 3); a head on all the representations, in the shuffled order, predicts the
    permutation. Images that are too small for the tiles are enlarged, and so are tiles for encoders that take images of
    one size only. Chance is ln of the number of permutations.

    Counter-measures (section 4.2): `jitter`, so that no edge continues in the next tile; `normalize`, against colours
    and brightness; `channel_jitter` and `gray`, against chromatic aberration; `border`, against frames.

    Batch: `x` (B, C, H, W) float, `noise` (B,) int64.
    Published: VOC 2007 67.6, 53.2, segmentation 37.6; ResNet-50 with 100 permutations, ImageNet, linear: 48.6.

    Deviations: 100 permutations by default; an image is divided at its own size (255 pixels there, tiles of 64); the
    shared fully connected layer has `hidden_dim` / 4 units.

    Args:
        permutations: Their number, chosen greedily for large Hamming distances (up to 1,000 in the paper); or, for 9
            tiles, agl9, pgl8 or pgammal8: 72, 504 or 1,512 permutations that differ in at least 8, 7 or 6 places, the
            first two of which are the largest such sets.
        grid: Tiles of each row and column, in [2, 3].
        tile_size: Side of a tile in pixels; 0: a quarter of the image's (3 × 3) and at least 8, in [0, inf).
        jitter: Range of a tile's position in its cell, as a fraction of the tile, in [0, inf).
        channel_jitter: Range by which the colour channels of a tile are shifted against each other, as a fraction of
            the tile, in [0, inf).
        gray: Probability that an image loses its colours, in [0, 1].
        normalize: Whether each channel of each tile gets mean 0 and standard deviation 1.
        min_scale: Smallest area of the square as a fraction of the image, in (0, 1].
        border: Width of the border that is left out all around, as a fraction of the side, in [0, 1/2).
        hidden_dim: Width of the hidden layer of the head, in [4, inf).
    """

    paper = "Noroozi & Favaro, 2016"
    section = "images: patches"
    counters = {  # noqa: RUF012
        "rim": {"jitter": 0.33},
        "colours": {"normalize": True},
        "aberration": {"channel_jitter": 0.03, "gray": 0.5},
        "residual": {"min_scale": 0.5, "jitter": 0.33},
        "border": {"border": 0.1},
    }
    coupled = False
    orders: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        permutations: str = "100",
        grid: int = 3,
        tile_size: int = 0,
        jitter: float = 0.33,
        channel_jitter: float = 0.03,
        gray: float = 0.5,
        normalize: bool = True,
        min_scale: float = 0.5,
        border: float = 0.0,
        hidden_dim: int = 512,
    ) -> None:
        super().__init__(encoder)
        self.grid, self.gray, self.normalize, self.min_scale = grid, gray, normalize, min_scale
        self.tile_size = tile_size or max(LEAST, 3 * encoder.spec.size // (4 * grid))
        self.channel_jitter = pixels(channel_jitter, self.tile_size) if encoder.spec.channels > 1 else 0
        self.jitter, self.border = pixels(jitter, self.tile_size), pixels(border, encoder.spec.size)
        self.cell = self.tile_size + self.jitter + self.channel_jitter
        self.size = room(encoder.spec, grid * self.cell + 2 * self.border, given=tile_size > 0)
        self.side = side_for(encoder, self.tile_size)
        self.register_buffer("orders", torch.tensor(permutation_set(permutations, grid**2)), persistent=False)
        self.shared = nn.Sequential(nn.Linear(encoder.dim, hidden_dim // 4), nn.ReLU(inplace=True))
        self.head = mlp(grid**2 * (hidden_dim // 4), hidden_dim, len(self.orders))

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return random square crops, some of them gray."""
        crop = Crop(self.size, scale=(self.min_scale, 1.0), ratio=(1.0, 1.0), gray=self.gray)
        return ImageViews(spec, {"x": crop}, noise=True)

    def puzzles(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the shuffled tiles (B, grid², C, h, w), and the number of the permutation (B,)."""
        x, key = batch["x"], batch["noise"]
        label = integers(key, len(self.orders))
        moved = integers(key, self.jitter + 1, 2, self.grid**2, stream=1)
        shifts = integers(key, self.channel_jitter + 1, 2, self.grid**2, x.shape[1], stream=2)
        first = self.border + integers(key, self.size - self.grid * self.cell - 2 * self.border + 1, 2, stream=3)
        top, left = (at[..., None] for at in corners(self.orders[label], self.grid, self.cell, first, moved))
        tiles = cut(x, top + shifts[:, 0], left + shifts[:, 1], self.tile_size)
        return standardised(tiles) if self.normalize else tiles, label

    def logits(self, tiles: Tensor) -> Tensor:
        """Return the logits of the permutations (B, K)."""
        return self.head(self.shared(encode(self.encoder, tiles, self.side)).flatten(1))

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy of the permutation."""
        tiles, label = self.puzzles(batch)
        return classified(self.logits(tiles), label)

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the image, the puzzle and its solution; with `guess` also the predicted solution."""
        puzzles, labels = self.puzzles(batch)
        solutions = [("solved", labels)] + ([("guess", self.logits(puzzles).argmax(1))] if guess else [])
        rows = []
        for i, (x, tiles) in enumerate(zip(batch["x"], puzzles, strict=True)):
            rows.append([Panel(x, "image"), Panel(mosaic(tiles, self.grid), f"permutation {int(labels[i])}")])
            for name, numbers in solutions:
                solved = mosaic(tiles[self.orders[numbers[i]].argsort()], self.grid)
                rows[-1].append(Panel(solved, f"{name}: {int(numbers[i])}"))
        return rows
