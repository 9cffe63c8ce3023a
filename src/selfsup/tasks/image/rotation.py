"""Rotation (Gidaris et al., 2018): predict how a picture was turned."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.data import ImageSpec
from selfsup.nn import accuracy, mlp
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views import Crop, ImageViews


class Rotation(Task):
    """Predict how a picture was turned: 0°, 90°, 180° or 270° (Gidaris et al., 2018, section 3).

    All four turns of each picture are in the batch (section 3.2: better than one turn drawn at random), made by
    transposing and flipping alone, so that no resampling leaves a trace. The picture is shifted by up to `pad` pixels
    over black and flipped before it is turned. Chance is ln 4.

    Batch: `x` (B, C, H, W) float. Published: CIFAR-10, NIN, conv2 features and a conv block, 91.16%.

    Deviations: the head is a perceptron with one hidden layer on the encoder's representation; the paper puts further
    convolutions on a feature map, which not every encoder has. It keeps what only serves the turns out of the encoder.
    `pretrain` takes AdamW and a cosine by default; the paper SGD with Nesterov momentum, 0.1, times 0.2 in three steps.
    """

    paper = "Gidaris et al., 2018"
    section = "images: distortion"
    coupled = False

    def __init__(self, encoder: Encoder, *, pad: int = 4, flip: float = 0.5, hidden: int = 256) -> None:
        super().__init__(encoder)
        self.pad, self.flip = pad, flip
        self.head = mlp(encoder.dim, hidden, 4)

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return shifted, flipped pictures."""
        return ImageViews(spec, {"x": Crop(spec.size, pad=self.pad, flip=self.flip)})

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy of the four turns."""
        turned, label = all_turns(batch["x"])
        logits = self.head(self.encoder(turned))
        return Loss(F.cross_entropy(logits, label), {"accuracy": accuracy(logits, label)}, math.log(4))

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the four turns of each picture, with the turn that is guessed."""
        turned, label = all_turns(batch["x"])
        captions = [f"{90 * turns}°" for turns in label.tolist()]
        if guess:
            guesses = self.head(self.encoder(turned)).argmax(1).tolist()
            captions = [f"{caption}, guess {90 * turns}°" for caption, turns in zip(captions, guesses, strict=True)]
        count = len(batch["x"])
        return [[Panel(turned[i], captions[i]) for i in range(row, 4 * count, count)] for row in range(count)]


def all_turns(x: Tensor) -> tuple[Tensor, Tensor]:
    """Turn (B, C, H, W) by 0°, 90°, 180° and 270° anticlockwise -> (4B, C, H, W) and labels (4B,) in 0..3."""
    turned = torch.cat([x.rot90(k, (2, 3)) for k in range(4)])
    return turned, torch.arange(4, device=x.device).repeat_interleave(len(x))
