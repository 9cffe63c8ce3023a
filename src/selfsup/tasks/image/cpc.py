"""Contrastive predictive coding of images (van den Oord et al., 2018; version 2: Hénaff et al., 2020)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from selfsup.base.distributed import gather
from selfsup.errors import UserError
from selfsup.losses import full, info_nce
from selfsup.nn.image.patches import LEAST, corners, cut, encode, mosaic, side_for, standardised
from selfsup.nn.image.recolor import half_changed
from selfsup.nn.noise import integers, uniform
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.tasks.image.cpc_context import Predictions
from selfsup.views.image import Crop, ImageViews


class CPC(Task):
    """Predict the representations of patches further down from those above (van den Oord et al., 2018, section 3.2).

    The image is cut into `grid` × `grid` patches that overlap by half, and each is encoded separately. A masked
    convolutional network computes a context c from the patch's own row and the rows above; W_k c predicts the patch k
    rows below, among all patches of all images in the global batch, including the same image (InfoNCE). k = 1 is left
    out because that row overlaps the context. Images are enlarged so that patches have at least 8 pixels, and patches
    are enlarged for encoders of a fixed input size. Chance is ln of the number of patches in the batch.

    Version 2 (Hénaff et al., 2020, section 3): predictions in all four directions, LayerNorm on the representations
    and in the context network, and augmentation of each patch by itself: half of them are flipped and half recoloured.

    Counter-measures: `jitter` against lines that continue from patch to patch; `drop_ratio` against chromatic
    aberration; `normalize` against colours that all patches of an image share.

    Batch: `x` (B, C, H, W) float, `noise` (B,) int64.
    Published: ImageNet, linear: 48.7 (ResNet-v2-101); version 2 63.8 (ResNet-50), 71.5 (ResNet-161).
    Deviations: the encoder keeps its own normalization layers (convnext_atto has the paper's LayerNorm); both versions
    have version 2's context network; version 2's colour augmentation is Exemplar's; patches are normalized.

    Args:
        version: 1 (van den Oord et al.) or 2 (Hénaff et al.), in [1, 2].
        grid: Patches along each side of the image, in [3, inf).
        prediction_steps: Rows down to the farthest patch that is predicted (largest k); less than `grid`, in [2, inf).
        jitter: Pixels by which a patch is smaller than its cell, within which its position is random (the paper: 60 of
            64 pixels), in [0, inf).
        drop_ratio: Fraction of the patches that have all channels replaced by one of them, in [0, 1].
        normalize: Standardize each channel of each patch; not in the paper of version 1.
        num_layers: Residual blocks of the context network, in [1, inf).
        out_dim: Dimension of the representations that are predicted, in [1, inf).
    """

    paper = "van den Oord et al., 2018"
    section = "images: patches"
    defaults = {"batch_size": 64}  # noqa: RUF012
    counters = {"rim": {"jitter": 2}, "colours": {"normalize": True}, "aberration": {"drop_ratio": 0.25}}  # noqa: RUF012

    def __init__(
        self,
        encoder: Encoder,
        *,
        version: int = 1,
        grid: int = 7,
        prediction_steps: int = 5,
        jitter: int = 2,
        drop_ratio: float = 0.25,
        normalize: bool = True,
        num_layers: int = 5,
        out_dim: int = 128,
    ) -> None:
        super().__init__(encoder)
        if not 2 <= prediction_steps < grid:
            raise UserError(f"--prediction-steps must be from 2 to {grid - 1} (--grid less 1), not {prediction_steps}")
        self.version, self.grid, self.jitter, self.drop_ratio, self.normalize = (
            version, grid, jitter, drop_ratio, normalize
        )  # fmt: skip
        self.stride = max((LEAST + jitter + 1) // 2, encoder.spec.size // (grid + 1))
        self.patch, self.extent = 2 * self.stride - jitter, (grid + 1) * self.stride
        self.size, self.side = max(encoder.spec.size, self.extent), side_for(encoder, self.patch)
        self.project = nn.Linear(encoder.dim, out_dim)
        self.norm = nn.LayerNorm(out_dim, elementwise_affine=False) if version == 2 else nn.Identity()
        self.predictions = Predictions(grid, prediction_steps, out_dim, num_layers, all_directions=version == 2)

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return random square crops, half of them flipped."""
        return ImageViews(spec, {"x": Crop(self.size, scale=(0.6, 1.0), ratio=(1.0, 1.0), flip=0.5)}, noise=True)

    def patches(self, batch: Batch) -> Tensor:
        """Return the patches in reading order (B, grid², C, h, w)."""
        x, key, count = batch["x"], batch["noise"], self.grid**2
        moved, first = integers(key, self.jitter + 1, 2, count), integers(key, self.size - self.extent + 1, 2, stream=1)
        place = torch.arange(count, device=x.device)
        found = cut(x, *corners(place, self.grid, self.stride, first, moved), self.patch)
        if self.version == 2:
            found = half_changed(found, key, self.encoder.spec)
        if found.shape[2] == 3:
            one = found.take_along_dim(integers(key, 3, count, 1, 1, 1, stream=4), 2)
            found = torch.where(uniform(key, count, 1, 1, 1, stream=2) < self.drop_ratio, one, found)
        return standardised(found) if self.normalize else found

    def represented(self, patches: Tensor) -> Tensor:
        """Return representations (B, grid², out_dim)."""
        return full(self.norm(self.project(encode(self.encoder, patches, self.side))))

    def loss(self, batch: Batch) -> Loss:
        """Return InfoNCE over all patches of the global batch."""
        z = gather(self.represented(self.patches(batch)))
        (guesses, targets), keys = self.predictions(z), z.flatten(0, 1)
        return Loss(info_nce(guesses, keys, math.sqrt(z.shape[2]), positive=targets), chance=math.log(len(keys)))

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the image, its patches, a context and its target row; with `guess` the patches that are predicted."""
        found, row = self.patches(batch), (self.grid - 2) // 2
        own, target = (slice(at * self.grid, (at + 1) * self.grid) for at in (row, row + 2))
        columns = [
            (slice(None), "patches"),
            (slice(own.stop), f"context: rows 1 to {row + 1}"),
            (target, f"target: row {row + 3}"),
        ]
        rows = [[Panel(x, "image")] for x in batch["x"]]
        for i, panels in enumerate(rows):
            panels += [Panel(mosaic(found[i, part], self.grid), caption) for part, caption in columns]
        if guess:
            z = self.represented(found)
            for i, predicted in enumerate(self.predictions(z)[0].split((self.grid - 2) * self.grid)[: len(z)]):
                chosen = (predicted[own] @ z.flatten(0, 1).T).argmax(1)
                right = int((chosen // self.grid**2 == i).sum())
                picked = found.flatten(0, 1)[chosen]
                rows[i].append(Panel(mosaic(picked, self.grid), f"guess: {right} of {self.grid}"))
        return rows
