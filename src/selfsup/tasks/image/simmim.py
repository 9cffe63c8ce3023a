"""SimMIM (Xie et al., 2022): a linear layer paints what a mask token stands for."""

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
    """Paint hidden patches with one linear layer on the encoder's tokens (Xie et al., 2022, section 3).

    A share `masked` of square units, of `unit` of the side of the image (32 of 192 pixels), is hidden: a learned
    token stands for each of their patches, and the encoder sees all places. The loss is the mean absolute error of the
    hidden pixels. `blind` is the loss of painting the mean colour.

    Batch: `x` (B, C, H, W) float; `noise` (B,) int64, from which units are chosen.
    Published: ImageNet, ViT-B fine-tuned 83.8%.

    Deviations: a unit is a whole number of patches that divides the grid, the nearest below `unit`. Crops are of at
    least the share 0.67, as in the paper; learning rate 1e-3 at a batch of 128, the paper's 8e-4 at 2048.
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
        masked: float = 0.6,
        unit: float = 32 / 192,
        least: float = 0.67,
        flip: float = 0.5,
    ) -> None:
        super().__init__(encoder)
        self.grid = grid_of(encoder)
        wide = [cells for cells in range(1, self.grid) if self.grid % cells == 0 and cells <= unit * self.grid + 0.5]
        self.cells = self.grid // (wide[-1] if wide else 1)  # units a side
        self.hidden = round(masked * self.cells**2)
        if not 0 < self.hidden < self.cells**2:
            raise UserError(f"--masked {masked} hides {self.hidden} of {self.cells**2} units: 0.6, for example")
        self.least, self.flip = least, flip
        self.mask_token = nn.Parameter(torch.zeros(encoder.dim))
        nn.init.normal_(self.mask_token, std=0.02)
        self.head = nn.Linear(encoder.dim, self.encoder.patch**2 * encoder.spec.channels)
        nn.init.normal_(self.head.weight, std=0.02)

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return crops of at least the share `least` of the image, perhaps mirrored."""
        return ImageViews(spec, {"x": Crop(spec.size, scale=(self.least, 1), flip=self.flip)}, noise=True)

    def loss(self, batch: Batch) -> Loss:
        """Return the error of the hidden pixels."""
        painted, mask = self._paint(batch)
        pixels = patchify(batch["x"], self.encoder.patch)[mask]
        value = (full(painted)[mask] - pixels).abs().mean()
        return Loss(value, {"blind": pixels.abs().mean()})

    def _paint(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the pixels of all patches as predicted, and which were hidden (B, N)."""
        units = lowest(noise.uniform(batch["noise"], self.cells**2), self.hidden)
        wide, square = self.grid // self.cells, units.view(-1, self.cells, self.cells)
        mask = square.repeat_interleave(wide, 1).repeat_interleave(wide, 2).flatten(1)
        tokens = self.encoder.tokens(batch["x"], mask=mask, mask_token=self.mask_token[None])
        return self.head(tokens[:, self.encoder.prefix :]), mask

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return each image with its hidden patches, as it is painted, and whole."""
        x = batch["x"]
        painted, mask = self._paint(batch)
        pictures = [(only(x, ~mask), f"{int(mask[0].sum())} of {mask.shape[1]} patches hidden")]
        if guess:
            whole = torch.where(mask[..., None], full(painted), patchify(x, self.encoder.patch))
            pictures += [(unpatchify(whole, x.shape[1]), "painted")]
        pictures += [(x, "the image")]
        return [[Panel(images[row], words) for images, words in pictures] for row in range(len(x))]
