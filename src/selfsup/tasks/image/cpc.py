"""Contrastive predictive coding of pictures (van den Oord et al., 2018; version 2: Hénaff et al., 2020)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from selfsup.data import ImageSpec
from selfsup.errors import UserError
from selfsup.losses import full, info_nce
from selfsup.nn.context import Context
from selfsup.nn.noise import integers, uniform
from selfsup.nn.patches import LEAST, corners, cut, encode, mosaic, side_for, standardised
from selfsup.nn.ranks import gather
from selfsup.nn.recolour import recoloured
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views import Crop, ImageViews


class CPC(Task):
    """Predict the representations of patches further down from those above (van den Oord et al., 2018, section 3.2).

    The picture is cut into `grid` × `grid` patches that overlap by half, and each is encoded alone. A masked
    convolutional network makes a context c of the rows above and of the own row; W_k c predicts the patch k rows below,
    among all patches of all pictures of the global batch, of the same picture too (InfoNCE). `ahead`: how far down at
    most; the next row is left out, for it overlaps the context. Pictures in which patches would have less than 8 pixels
    are enlarged. Encoders that take pictures of one size alone get the patches enlarged. Chance is ln of the number of
    patches in the batch.

    `version=2` (Hénaff et al., 2020, section 3): predictions in all four directions, LayerNorm on the representations
    and in the context network, and each patch changed on its own.

    Counter-measures: `jitter`: a patch lies anywhere in its place, which is so many pixels larger (crops of 60 of 64
    pixels), against lines that go on; `drop` is the share of patches that keep one colour channel alone, set in
    all channels, against chromatic aberration; `normalise` each channel of each patch to mean 0 and deviation 1,
    against colours and brightness that all patches of a picture share. Version 2 flips and recolours half of the
    patches.

    Batch: `x` (B, C, H, W) float, `noise` (B,) int64. Published: ImageNet, linear: 48.7 (ResNet-v2-101); version 2 63.8
    (ResNet-50), 71.5 (ResNet-161).

    Deviations: the encoder keeps the normalisation that it was built with; for the paper's LayerNorm take one that has
    it, for example convnext_atto. The context network is that of version 2 in both. Version 2's changes of colours are
    Exemplar's. The paper of version 1 does not normalise patches.
    """

    paper = "van den Oord et al., 2018"
    section = "images: patches"
    defaults = {"batch_size": 64}  # noqa: RUF012
    counters = {"rim": {"jitter": 2}, "colours": {"normalise": True}, "aberration": {"drop": 0.25}}  # noqa: RUF012

    def __init__(
        self,
        encoder: Encoder,
        *,
        version: int = 1,
        grid: int = 7,
        ahead: int = 5,
        jitter: int = 2,
        drop: float = 0.25,
        normalise: bool = True,
        depth: int = 5,
        dim: int = 128,
    ) -> None:
        super().__init__(encoder)
        if version not in (1, 2):
            raise UserError(f"there are versions 1 and 2 of CPC: --version is 1 or 2, not {version}")
        if not 2 <= ahead < grid:
            raise UserError(f"predictions go 2 to {grid - 1} rows down: --ahead is one of these, not {ahead}")
        spec: ImageSpec = encoder.spec
        self.version, self.grid, self.ahead, self.jitter = version, grid, ahead, jitter
        self.drop, self.normalise = drop, normalise
        self.stride = max((LEAST + jitter + 1) // 2, spec.size // (grid + 1))
        self.patch, self.extent = 2 * self.stride - jitter, (grid + 1) * self.stride
        self.size = max(spec.size, self.extent)
        self.side = side_for(encoder, self.patch)
        self.project = nn.Linear(encoder.dim, dim)
        self.norm = nn.LayerNorm(dim, elementwise_affine=False) if version == 2 else nn.Identity()
        directions = 4 if version == 2 else 1
        self.context = nn.ModuleList(Context(dim, depth, version == 2) for _ in range(directions))
        self.predict = nn.ModuleList(nn.Conv2d(dim, (ahead - 1) * dim, 1, bias=False) for _ in range(directions))

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return flipped squares cut at random."""
        return ImageViews(spec, {"x": Crop(self.size, scale=(0.6, 1.0), ratio=(1.0, 1.0), flip=0.5)}, noise=True)

    def patches(self, batch: Batch) -> Tensor:
        """Return the patches in reading order (B, grid², C, h, w)."""
        x, key, count = batch["x"], batch["noise"], self.grid**2
        place = torch.arange(count, device=x.device)
        moved = integers(key, self.jitter + 1, 2, count)
        first = integers(key, self.size - self.extent + 1, 2, stream=1)
        found = cut(x, *corners(place, self.grid, self.stride, first, moved), self.patch)
        chance = uniform(key, 3, count, 1, 1, 1, stream=2)
        if self.version == 2:
            draws = 2 * uniform(key, count, 10, stream=3).flatten(0, 1) - 1
            coloured = recoloured(found.flatten(0, 1), draws, self.encoder.spec).view_as(found)
            found = torch.where(chance[:, 0] < 0.5, coloured, found)
            found = torch.where(chance[:, 1] < 0.5, found.flip(4), found)
        if found.shape[2] == 3:
            kept = integers(key, 3, count, 1, 1, 1, stream=4).expand(-1, -1, 1, *found.shape[3:])
            found = torch.where(chance[:, 2] < self.drop, found.gather(2, kept), found)
        return standardised(found) if self.normalise else found

    def predictions(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return predictions (P, dim) from representations (B, grid², dim), and the numbers of what they predict (P,).

        Patches count through the batch: patch p of picture b is b * grid² + p.
        """
        count = len(z) * self.grid**2
        number = torch.arange(count, device=z.device).view(-1, 1, self.grid, self.grid)
        square = z.transpose(1, 2).unflatten(2, (self.grid, self.grid))  # type: ignore[no-untyped-call]
        guesses, targets = [], []
        for turns, (context, predict) in enumerate(zip(self.context, self.predict, strict=True)):
            guessed = predict(context(square.rot90(turns, (2, 3)))).chunk(self.ahead - 1, 1)
            for k, guess in enumerate(guessed, 2):
                guesses.append(guess[:, :, :-k].permute(0, 2, 3, 1).flatten(0, 2))
                targets.append(number.rot90(turns, (2, 3))[:, 0, k:].flatten())
        return torch.cat(guesses), torch.cat(targets)

    def loss(self, batch: Batch) -> Loss:
        """Return InfoNCE over all patches of the global batch."""
        z = gather(full(self.norm(self.project(encode(self.encoder, self.patches(batch), self.side)))))
        guesses, targets = self.predictions(z)
        keys = z.flatten(0, 1)
        return Loss(info_nce(guesses, keys, math.sqrt(z.shape[2]), positive=targets), chance=math.log(len(keys)))

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the picture, its patches and what predicts what; with `guess` the patches that are found for a row."""
        found, k = self.patches(batch), 2
        rows = [
            [Panel(x, "picture"), Panel(mosaic(p, self.grid), "patches")]
            for x, p in zip(batch["x"], found, strict=True)
        ]
        from_row = (self.grid - k) // 2
        to_row = from_row + k
        line = [slice(row * self.grid, (row + 1) * self.grid) for row in (from_row, to_row)]
        for b, row in enumerate(rows):
            row.append(Panel(mosaic(found[b, : line[0].stop], self.grid), f"rows 1 to {from_row + 1} tell"))
            row.append(Panel(mosaic(found[b, line[1]], self.grid), f"row {to_row + 1} of picture {b}"))
        if guess:
            z = self.norm(self.project(encode(self.encoder, found, self.side)))
            guesses, _ = self.predictions(z)
            first = guesses[: len(z) * (self.grid - k) * self.grid].view(len(z), -1, self.grid, z.shape[2])
            chosen = (first[:, from_row] @ z.flatten(0, 1).T).argmax(2)
            for b, row in enumerate(rows):
                own = int((chosen[b] // self.grid**2 == b).sum())
                picked = found.flatten(0, 1)[chosen[b]]
                row.append(Panel(mosaic(picked, self.grid), f"guess: {own} of {self.grid} its own"))
        return rows
