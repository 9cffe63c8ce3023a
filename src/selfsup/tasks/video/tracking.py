"""Tracking (Wang and Gupta, 2015): the same thing some frames later is nearer than any other thing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.base.distributed import gather
from selfsup.losses import product, unit
from selfsup.nn.heads import mlp
from selfsup.source import Source
from selfsup.spec import ClipSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.tasks.video.frames import check_frames
from selfsup.views.image import Crop
from selfsup.views.video import PatchViews


class Tracking(Task):
    """Rank the end of an image patch's track before all other patches (Wang and Gupta, 2015, equation 3).

    The loss is max(0, D(x, x⁺) - D(x, x⁻) + `margin`) with D = 1 - cosine, in both directions: anchors are first and
    last patches. Negatives are all other tracks of the batch, then, after `hard_from` of the steps, the hardest
    `num_negatives` of each anchor. Chance, a guess that ignores the patch, is `margin`.

    Counter-measures: the video itself, its background and its codec, tells patches of two videos apart. So each video
    gives `num_tracks` patches of the same moment, and these negatives count as much as all others together. Mirroring,
    colours and a small shift are drawn for each patch.

    Batch: `x` (B, K, 2, C, S, S) float, K tracks' first and last patches; `index` (B,) int64. Published: VOC 2007
    detection, fine-tuned, 47.2% mAP (AlexNet; ensemble 52.0%).

    Deviations: tracks are corners that move together (Lucas-Kanade), not KCF boxes around SURF points; a patch keeps
    the resolution that it has in the frame, so that whole frames show things in the size that was learned.

    Args:
        gap: Frames of the video from the first to the last patch; about 30 in the paper, in [1, inf).
        num_tracks: Tracks of one moment of each video; videos with fewer are left out, in [2, inf).
        margin: Margin M of the ranking, in (0, 2].
        num_negatives: Hardest negatives of each anchor, in [1, inf).
        hard_from: From which part of the steps on negatives are hard ones, in [0, 1].
        hidden_dim: Width of the hidden layer of the head; 4096 in the paper, in [1, inf).
        out_dim: Dimension of the embedding that the loss compares; 1024 in the paper, in [1, inf).
    """

    paper = "Wang and Gupta, 2015"
    section = "video: tracking"
    kind = "video"
    default_encoder = "convnet"

    def __init__(
        self,
        encoder: Encoder,
        *,
        gap: int = 20,
        num_tracks: int = 2,
        margin: float = 0.5,
        num_negatives: int = 4,
        hard_from: float = 0.4,
        hidden_dim: int = 512,
        out_dim: int = 128,
    ) -> None:
        super().__init__(encoder)
        check_frames(encoder)
        self.gap, self.num_tracks, self.margin = gap, num_tracks, margin
        self.num_negatives, self.hard_from = num_negatives, hard_from
        self.head = mlp(encoder.dim, hidden_dim, out_dim)

    def samples(self, source: Source) -> Source:
        """Find what moves in files before the first step, side by side, and return the source."""
        find = getattr(source.conform(self.encoder.spec), "find_tracks", None)
        if find is not None:
            find(self.gap)
        return source

    def views(self, spec: ClipSpec) -> PatchViews:
        """Return patches of a third of the frame."""
        side = max(16, round(spec.size / 3))
        crop = Crop(side, flip=0.5, jitter=(0.4, 0.4, 0.4, 0.1))
        return PatchViews(spec, crop, self.gap, self.num_tracks)

    def embed(self, x: Tensor) -> Tensor:
        """(N, C, S, S) -> (N, out_dim), of unit length."""
        return unit(self.head(self.encoder.frames(x[:, None])[:, 0]))

    def loss(self, batch: Batch) -> Loss:
        """Return the ranking loss of both directions, and how often the nearest patch is the right one."""
        x = batch["x"]
        z = gather(self.embed(x.flatten(0, 2)).view(len(x), self.num_tracks, 2, -1))
        first, last = z.flatten(0, 1).unbind(1)
        video = torch.arange(len(z), device=z.device).repeat_interleave(self.num_tracks)
        same = video[:, None] == video
        cosine = product(first, last.T)
        value = (self._ranked(cosine, same) + self._ranked(cosine.T, same)) / 2
        with torch.no_grad():
            own = torch.arange(len(first), device=z.device)
            among = {"retrieval": cosine, "retrieval in the video": cosine.masked_fill(~same, -2)}
            found = {name: (scores.argmax(1) == own).float().mean() for name, scores in among.items()}
        return Loss(value, found, self.margin)

    def _ranked(self, cosine: Tensor, same: Tensor) -> Tensor:
        """Return the loss of anchors in rows: the mean over other videos, and that over things of the same video."""
        hinge = F.relu(self.margin + cosine - cosine.diagonal()[:, None])
        itself = torch.eye(len(cosine), dtype=torch.bool, device=cosine.device)
        inside = hinge[same & ~itself].mean()
        if same.all():  # a batch of one video
            return inside
        others = hinge.masked_fill(same, -1)
        if self.progress < self.hard_from:
            return (inside + hinge[~same].mean()) / 2
        return (inside + others.topk(min(self.num_negatives, int((~same[0]).sum()))).values.mean()) / 2

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the patches of each video, with `guess` the cosine of each track's two patches and of the next one."""
        x = batch["x"]
        names = [f"thing {k + 1}, {when}" for k in range(self.num_tracks) for when in ("first", "last")]
        captions = [names] * len(x)
        if guess:
            first, last = self.embed(x.flatten(0, 2)).view(len(x), self.num_tracks, 2, -1).unbind(2)
            own, other = (first * last).sum(2), (first * last.roll(1, 1)).sum(2)
            captions = [
                [name if n % 2 == 0 else f"{name}, cosine {a[n // 2]:.2f}, of another {b[n // 2]:.2f}"
                 for n, name in enumerate(names)]
                for a, b in zip(own.tolist(), other.tolist(), strict=True)
            ]  # fmt: skip
        return [
            [Panel(patch[None], caption) for patch, caption in zip(*row, strict=True)]
            for row in zip(x.flatten(1, 2), captions, strict=True)
        ]
