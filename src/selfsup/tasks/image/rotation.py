"""Rotation (Gidaris et al., 2018): predict how an image was turned."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.errors import UserError
from selfsup.nn.constants import constant
from selfsup.nn.heads import classified, mlp
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.image import Crop, ImageViews
from selfsup.views.image.reference import blur


class Rotation(Task):
    """Predict how an image was turned: 0°, 90°, 180° or 270° (Gidaris et al., 2018, section 3).

    All four turns of each image are in the batch (section 3.2: better than one turn drawn at random), made by
    transposing and flipping alone, so that no resampling leaves a trace. The image is shifted by up to `pad` pixels
    over black and flipped before it is turned. Chance is ln of the number of turns.

    `turns` is 2 (0° and 180°), 4 or 8; in the paper 4 are best, by 1.6 and 0.6 points (CIFAR-10). Eight cannot be made
    without resampling, whose traces would tell the multiples of 90°, which need none, from the others. So all eight are
    resampled: they are 22.5° and on by 45°, which come in mirrored pairs; before it a Gaussian of `smooth` pixels takes
    away what the pixel grid has in its diagonals alone; and only the disc that all turns have in common is shown,
    without the corners.

    Counter-measures: `smooth`, of eight turns.

    Batch: `x` (B, C, H, W) float. Published: CIFAR-10, NIN, conv2 features and a conv block, 91.16%.

    Deviations: the head is an MLP with one hidden layer on the encoder's representation; the paper puts further
    convolutions on a feature map, which not every encoder has. It keeps what only serves the turns out of the encoder.
    `pretrain` takes AdamW and a cosine by default; the paper SGD with Nesterov momentum, 0.1, times 0.2 in three steps.
    """

    paper = "Gidaris et al., 2018"
    section = "images: distortion"
    coupled = False

    def __init__(
        self,
        encoder: Encoder,
        *,
        turns: int = 4,
        pad: int = 4,
        flip: float = 0.5,
        smooth: float = 1.0,
        hidden: int = 256,
    ) -> None:
        super().__init__(encoder)
        if turns not in (2, 4, 8):
            raise UserError(f"an image is turned into 2, 4 or 8 positions: --turns is one of these, not {turns}")
        self.turns, self.pad, self.flip, self.smooth = turns, pad, flip, smooth
        self.head = mlp(encoder.dim, hidden, turns)

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return shifted, flipped images."""
        return ImageViews(spec, {"x": Crop(spec.size, pad=self.pad, flip=self.flip)})

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy of the turns."""
        turned, label = all_turns(batch["x"], self.turns, self.smooth)
        return classified(self.head(self.encoder(turned)), label)

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the turns of each image, with the turn that is guessed."""
        turned, label = all_turns(batch["x"], self.turns, self.smooth)
        captions = [f"{turn * 360 // self.turns}°" for turn in label.tolist()]
        if guess:
            guesses = self.head(self.encoder(turned)).argmax(1).tolist()
            captions = [
                f"{caption}, guess {turn * 360 // self.turns}°" for caption, turn in zip(captions, guesses, strict=True)
            ]
        count = len(batch["x"])
        return [[Panel(turned[i], captions[i]) for i in range(row, len(turned), count)] for row in range(count)]


def all_turns(x: Tensor, turns: int = 4, smooth: float = 0.0) -> tuple[Tensor, Tensor]:
    """Turn (B, C, H, W) by 0°, 360° / turns, … anticlockwise -> (turns * B, C, H, W) and labels (turns * B,)."""
    if turns == 8:
        if smooth:
            x = blur(x, torch.full((len(x),), smooth, device=x.device))
        slanted = [resampled(x, degrees) for degrees in (22.5, 67.5)]
        positions = [y.rot90(k, (2, 3)) for k in range(4) for y in slanted]
    else:
        positions = [x.rot90(k, (2, 3)) for k in range(0, 4, 4 // turns)]
    return torch.cat(positions), torch.arange(turns, device=x.device).repeat_interleave(len(x))


def resampled(x: Tensor, degrees: float) -> Tensor:
    """Turn square images anticlockwise by any angle; what lies outside of the disc in the middle becomes 0."""
    size, angle = x.shape[-1], math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    matrix = constant(((cos, -sin, 0.0), (sin, cos, 0.0)), x).expand(len(x), -1, -1)
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    turned = F.grid_sample(x, grid, mode="bicubic", padding_mode="reflection", align_corners=False)
    line = torch.arange(size, device=x.device) - (size - 1) / 2
    return turned * (line[:, None].square() + line.square() <= (size / 2) ** 2)
