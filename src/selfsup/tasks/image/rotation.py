"""Rotation (Gidaris et al., 2018): predict by which angle an image was rotated."""

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
from selfsup.spec.image import OVERHEAD
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.image import Crop, ImageViews
from selfsup.views.image.reference import blur


class Rotation(Task):
    """Predict by which angle an image was rotated: 0°, 90°, 180° or 270° (Gidaris et al., 2018, section 3).

    Each batch contains all rotations of every image (section 3.2: better than drawing one at random). They are made by
    transposing and flipping, so no resampling leaves a trace. Chance is the ln of the number of rotations.

    In the paper four rotations are best: two cost 1.6 points, eight 0.6 (CIFAR-10). Eight cannot be made without
    resampling, whose traces would give away which angles are not multiples of 90°. So with eight, all are resampled:
    the angles are 22.5°, 67.5° and so on, which come in mirrored pairs; a Gaussian blur beforehand removes detail that
    the pixel grid can hold only along its diagonals; and only the disc that all rotations share is shown.

    Counter-measures: `smoothing`, with eight rotations. Of images that are not square only the centre square is shifted
    and rotated: a rim at their short sides alone would tell 0° and 180° from 90° and 270°.

    Batch: `x` (B, C, H, W) float. Published: CIFAR-10, NIN, conv2 features and a conv block, 91.16%.

    Deviations: the head is an MLP on the encoder's representation, which keeps what only serves this task out of the
    encoder; the paper puts further convolutions on a feature map, which not every encoder has. `pretrain` uses AdamW
    and a cosine schedule by default; the paper SGD with Nesterov momentum at 0.1, multiplied by 0.2 in three steps.

    Args:
        num_rotations: Rotations of each image: 2 (0° and 180°), 4 or 8, in [2, 8].
        pad: Largest shift of the image before it is rotated, in pixels, over black, in [0, inf).
        flip: Probability of mirroring the image before it is rotated, in [0, 1].
        smoothing: Standard deviation of the blur before eight rotations, in pixels; 0 for none, in [0, inf).
        hidden_dim: Width of the head's hidden layer, in [1, inf).
    """

    paper = "Gidaris et al., 2018"
    section = "images: distortion"
    any_size = True
    coupled = False

    def __init__(
        self,
        encoder: Encoder,
        *,
        num_rotations: int = 4,
        pad: int = 4,
        flip: float = 0.5,
        smoothing: float = 1.0,
        hidden_dim: int = 256,
    ) -> None:
        super().__init__(encoder)
        if num_rotations not in (2, 4, 8):
            raise UserError(f"--num-rotations must be 2, 4 or 8, not {num_rotations}")
        self.num_rotations, self.pad, self.flip, self.smoothing = num_rotations, pad, flip, smoothing
        self.head = mlp(encoder.dim, hidden_dim, num_rotations)

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return shifted, flipped images; raise `UserError` for images without an up."""
        if spec.views == OVERHEAD:
            raise UserError(
                "rotation asks which way is up, and with --views overhead images have no up: "
                "give another --task, such as simclr"
            )
        return ImageViews(spec, {"x": Crop(spec.size, pad=self.pad, flip=self.flip)})

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy of the rotations."""
        rotated, label = all_rotations(batch["x"], self.num_rotations, self.smoothing)
        return classified(self.head(self.encoder(rotated)), label)

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the rotations of each image, with `guess` beside the predicted ones."""
        rotated, label = all_rotations(batch["x"], self.num_rotations, self.smoothing)
        captions = [f"{k * 360 // self.num_rotations}°" for k in label.tolist()]
        if guess:
            guesses = self.head(self.encoder(rotated)).argmax(1).tolist()
            captions = [
                f"{caption}, guess {k * 360 // self.num_rotations}°"
                for caption, k in zip(captions, guesses, strict=True)
            ]
        count = len(batch["x"])
        return [[Panel(rotated[i], captions[i]) for i in range(row, len(rotated), count)] for row in range(count)]


def all_rotations(x: Tensor, count: int = 4, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Rotate (B, C, H, W) anticlockwise by multiples of 360° / count -> (count · B, C, H, W), labels (count · B,)."""
    if count == 8:
        if smoothing:
            x = blur(x, torch.full((len(x),), smoothing, device=x.device))
        slanted = [rotate(x, degrees) for degrees in (22.5, 67.5)]
        rotated = [y.rot90(k, (2, 3)) for k in range(4) for y in slanted]
    else:
        rotated = [x.rot90(k, (2, 3)) for k in range(0, 4, 4 // count)]
    return torch.cat(rotated), torch.arange(count, device=x.device).repeat_interleave(len(x))


def rotate(x: Tensor, degrees: float) -> Tensor:
    """Rotate square images anticlockwise by any angle; everything outside the central disc becomes 0."""
    size, angle = x.shape[-1], math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    matrix = constant(((cos, -sin, 0.0), (sin, cos, 0.0)), x).expand(len(x), -1, -1)
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    rotated = F.grid_sample(x, grid, mode="bicubic", padding_mode="reflection", align_corners=False)
    line = torch.arange(size, device=x.device) - (size - 1) / 2
    return rotated * (line[:, None].square() + line.square() <= (size / 2) ** 2)
