"""SimMIM (Xie et al., 2022): reconstruct masked patches with a linear layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from selfsup.errors import UserError
from selfsup.losses import full
from selfsup.nn import noise
from selfsup.nn.image.masks import grid_of, lowest, only, patchify, unpatchify
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.image import Crop, ImageViews


class SimMIM(Task):
    """Reconstruct masked patches with one linear layer on the encoder's tokens (Xie et al., 2022, section 3).

    Square units of the image are masked: a learned token replaces each of their patches, and the encoder sees the
    tokens of all patches. The loss is the mean absolute error of the masked pixels. `blind` is the loss of predicting
    the mean colour.

    Batch: `x` (B, C, H, W) float; `noise` (B,) int64, from which the masked units are drawn.
    Published: ImageNet, ViT-B fine-tuned 83.8%.

    Deviations: the learning rate is 1e-3 at a batch of 128; the paper's is 8e-4 at 2,048.

    Args:
        mask_ratio: Fraction of the units that are masked, in (0, 1).
        mask_unit: Side of a unit as a fraction of the image's, rounded to patches that divide the grid, in (0, 1).
        min_scale: Minimum area of a crop as a fraction of the image, in (0, 1].
        flip: Probability of mirroring the image, in [0, 1].
    """

    paper = "Xie et al., 2022"
    section = "images: masked"
    default_encoder = "vit"
    small_encoder = "vit-mini"
    defaults = {"lr": 1e-3, "warmup": 0.1, "clip": 5.0}  # noqa: RUF012
    coupled = False

    def __init__(
        self,
        encoder: Encoder,
        *,
        mask_ratio: float = 0.6,
        mask_unit: float = 32 / 192,
        min_scale: float = 0.67,
        flip: float = 0.5,
    ) -> None:
        super().__init__(encoder)
        self.grid = grid_of(encoder)
        divisors = [n for n in range(1, self.grid) if self.grid % n == 0 and n <= mask_unit * self.grid + 0.5]
        self.unit = divisors[-1] if divisors else 1  # patches per side
        self.num_units = (self.grid // self.unit) ** 2
        self.num_masked = round(mask_ratio * self.num_units)
        if not 0 < self.num_masked < self.num_units:
            raise UserError(f"--mask-ratio {mask_ratio} masks {self.num_masked} of {self.num_units} units: try 0.6")
        self.min_scale, self.flip = min_scale, flip
        self.mask_token = nn.Parameter(torch.zeros(encoder.dim))
        nn.init.normal_(self.mask_token, std=0.02)
        self.head = nn.Linear(encoder.dim, self.encoder.patch**2 * encoder.spec.channels)
        nn.init.normal_(self.head.weight, std=0.02)

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return crops, mirrored at random."""
        return ImageViews(spec, {"x": Crop(spec.size, scale=(self.min_scale, 1), flip=self.flip)}, noise=True)

    def loss(self, batch: Batch) -> Loss:
        """Return the mean absolute error of the masked pixels."""
        predicted, mask = self._predict(batch)
        pixels = patchify(batch["x"], self.encoder.patch)[mask]
        value = (full(predicted)[mask] - pixels).abs().mean()
        return Loss(value, {"blind": pixels.abs().mean()})

    def _predict(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the predicted pixels of all patches, and which were masked (B, N)."""
        side = self.grid // self.unit
        units = lowest(noise.uniform(batch["noise"], self.num_units), self.num_masked).view(-1, side, side)
        mask = units.repeat_interleave(self.unit, 1).repeat_interleave(self.unit, 2).flatten(1)
        tokens = self.encoder.tokens(batch["x"], mask=mask, mask_token=self.mask_token[None])
        return self.head(tokens[:, self.encoder.prefix :]), mask

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return each image masked, with `guess` its reconstruction, and the image itself."""
        x = batch["x"]
        predicted, mask = self._predict(batch)
        columns = [(only(x, ~mask), f"{int(mask[0].sum())} of {mask.shape[1]} patches masked")]
        if guess:
            whole = torch.where(mask[..., None], full(predicted), patchify(x, self.encoder.patch))
            columns += [(unpatchify(whole, x.shape[1]), "reconstruction")]
        columns += [(x, "the image")]
        return [[Panel(images[row], caption) for images, caption in columns] for row in range(len(x))]
