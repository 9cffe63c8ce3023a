"""Arrow of time (Wei et al., 2018): is a clip running forwards or backwards?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from selfsup.nn import noise
from selfsup.nn.heads import classified, mlp
from selfsup.nn.image.patches import standardised
from selfsup.spec import ClipSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.image import Crop
from selfsup.views.video import ClipViews, Cut


class ArrowOfTime(Task):
    """Tell whether a clip runs forwards or backwards (Wei et al., 2018, section 3).

    Each batch has every clip both ways, as in the paper. An encoder that reads frame by frame is followed by late
    fusion of the frames in time: a head on the representations of all frames in their order. Chance is ln 2.

    Counter-measures: one crop for all frames, within the frame; `border`, against black bars; `normalize`, against
    fades and flicker. What a codec leaves (frames predicted from the past) is not removed: see what `audit` says of
    `residual`. On videos without an arrow, such as `moving:elastic`, the accuracy must stay at one half.

    Batch: `clip` (B, T, C, H, W) float; `noise` (B,) int64, from which the direction in panels is drawn. Published:
    UCF101, flow, fine-tuned 86.3%.

    Deviations: frames where the paper has optical flow; a small MLP where it has convolutions over the fused maps.

    Args:
        min_scale: Smallest area of a crop as a fraction of the frame, in (0, 1].
        hidden_dim: Width of the head's hidden layer, in [1, inf).
        border: Width of the border that is left out all around, as a fraction of the frame, in [0, 1/2).
        normalize: Whether each channel of each frame gets mean 0 and standard deviation 1.
    """

    paper = "Wei et al., 2018"
    section = "video: order"
    kind = "video"
    default_encoder = "convnet"
    coupled = False
    counters = {"border": {"border": 0.15}, "rim": {"border": 0.15}, "colours": {"normalize": True}}  # noqa: RUF012

    def __init__(
        self,
        encoder: Encoder,
        *,
        min_scale: float = 0.5,
        hidden_dim: int = 256,
        border: float = 0.0,
        normalize: bool = False,
    ) -> None:
        super().__init__(encoder)
        self.min_scale, self.border, self.normalize = min_scale, border, normalize
        self.fused = hasattr(encoder, "frames")
        width = self.encoder.dim * (encoder.spec.frames if self.fused else 1)
        self.head = mlp(width, hidden_dim, 2)

    def views(self, spec: ClipSpec) -> ClipViews:
        """Return clips in which something moves."""
        crop = Crop(spec.size, scale=(self.min_scale, 1), centre=1 - 2 * self.border, flip=0.5)
        return ClipViews(spec, {"clip": (crop, Cut(spec.frames, spec.step, at="moving"))}, noise=True)

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy of the two directions."""
        clip = batch["clip"]
        label = torch.arange(2, device=clip.device).repeat_interleave(len(clip))
        return classified(self._logits(torch.cat([clip, clip.flip(1)])), label)

    def _logits(self, clip: Tensor) -> Tensor:
        clip = standardised(clip) if self.normalize else clip
        return self.head(self.encoder.frames(clip).flatten(1) if self.fused else self.encoder(clip))

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return each clip in a direction drawn for it, with `guess` beside the probability of running backwards."""
        clip = batch["clip"]
        backwards = noise.uniform(batch["noise"], 1)[:, 0] < 0.5
        shown = torch.where(backwards.view(-1, 1, 1, 1, 1), clip.flip(1), clip)
        captions = ["backwards" if one else "forwards" for one in backwards.tolist()]
        if guess:
            found = self._logits(shown).softmax(1)[:, 1].tolist()
            captions = [f"{caption}, guess {p:.0%} backwards" for caption, p in zip(captions, found, strict=True)]
        return [[Panel(shown[i], caption)] for i, caption in enumerate(captions)]
