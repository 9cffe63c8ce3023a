"""Shuffle and Learn (Misra et al., 2016): are three frames in the right order?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.nn import noise
from selfsup.nn.constants import constant
from selfsup.nn.heads import mlp
from selfsup.spec import ClipSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.tasks.video.frames import check_frames
from selfsup.views.image import Crop
from selfsup.views.video import ClipViews, Cut

TUPLES = ((1, 2, 3), (3, 2, 1), *2 * ((1, 0, 3), (1, 4, 3)), (3, 0, 1), (3, 4, 1))  # the first two are in order
CHANCE = 0.25 * math.log(4) + 0.75 * math.log(4 / 3)  # entropy of a quarter of positives: 0.562


class ShuffleLearn(Task):
    """Tell whether three frames of a video are in order (Misra et al., 2016, section 3).

    Of five frames a < b < c < d < e, (b, c, d) is in order, and so is (d, c, b); (b, a, d) and (b, e, d) are not. The
    outer frames are the same in all of them, so that only the middle one can tell. A quarter of the tuples is in order:
    a blind guess is right in 75%, so what is shown is the balanced accuracy, whose chance is one half.

    Counter-measures: frames are taken where something moves; all frames of a tuple have one crop and one flip. In short
    videos the light or a shadow tells when a frame was, and the middle frame alone is enough: with a small `gap` tuples
    begin anywhere.

    Batch: `clip` (B, 5, C, H, W) float; `noise` (B,) int64, from which the tuples are drawn.
    Published: UCF101 50.9% (split 1), HMDB51 19.8%, fine-tuned.

    Deviations: the five frames are equally far apart, where the paper draws |b - d| up to 60 frames and |a - b| from
    15; an MLP on the three representations.

    Args:
        gap: Frames of the video between two of the five, in [1, inf).
        min_scale: Smallest area of a crop as a fraction of the frame, in (0, 1].
        hidden_dim: Width of the head's hidden layer, in [1, inf).
    """

    paper = "Misra et al., 2016"
    section = "video: order"
    kind = "video"
    default_encoder = "convnet"
    coupled = False
    counters = {"background": {"gap": 1}, "middle": {"gap": 1}}  # noqa: RUF012

    def __init__(self, encoder: Encoder, *, gap: int = 4, min_scale: float = 0.5, hidden_dim: int = 256) -> None:
        super().__init__(encoder)
        check_frames(encoder)
        self.gap, self.min_scale = gap, min_scale
        head: Any = mlp(3 * encoder.dim, hidden_dim, 1)
        head[-1].bias.data.fill_(-math.log(3))  # a quarter is in order
        self.head = head

    def views(self, spec: ClipSpec) -> ClipViews:
        """Return five frames of a part of the video in which something moves."""
        crop = Crop(spec.size, scale=(self.min_scale, 1), flip=0.5)
        return ClipViews(spec, {"clip": (crop, Cut(5, self.gap, at="moving"))}, noise=True)

    def loss(self, batch: Batch) -> Loss:
        """Return the binary cross-entropy of being in order."""
        order, label = self._tuples(batch["noise"])
        logits = self._logits(batch["clip"], order)
        right = (logits > 0).float() == label
        each = [(right & (label == k)).sum() / (label == k).sum().clamp_min(1) for k in (0, 1)]
        before = logits.detach()[label == 1, None] - logits.detach()[label == 0]
        value = F.binary_cross_entropy_with_logits(logits, label)
        found = {
            "balanced_accuracy": (each[0] + each[1]) / 2,
            "auc": (before.sign().sum() / max(before.numel(), 1) + 1) / 2,
        }
        return Loss(value, found, CHANCE)

    def _tuples(self, key: Tensor) -> tuple[Tensor, Tensor]:
        """Return the numbers of the three frames (B, 3), and whether they are in order (B,) float."""
        drawn = noise.integers(key, len(TUPLES), 1)[:, 0]
        order = constant(TUPLES, key)[drawn].long()
        return order, (order[:, 1] == 2).float()

    def _logits(self, clip: Tensor, order: Tensor) -> Tensor:
        picked = clip[torch.arange(len(clip), device=clip.device)[:, None], order]
        return self.head(self.encoder.frames(picked).flatten(1))[:, 0]

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the tuple of each video as a clip, with `guess` the predicted probability that it is in order."""
        clip = batch["clip"]
        order, label = self._tuples(batch["noise"])
        captions = ["in order" if one else "shuffled" for one in label.tolist()]
        if guess:
            found = self._logits(clip, order).sigmoid().tolist()
            captions = [f"{caption}, guess {p:.0%} in order" for caption, p in zip(captions, found, strict=True)]
        return [[Panel(clip[i][order[i]], captions[i]), Panel(clip[i], "the five frames")] for i in range(len(clip))]
