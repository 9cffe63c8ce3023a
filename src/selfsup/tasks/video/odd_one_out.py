"""Odd-one-out networks, O3N (Fernando et al., 2017): which of six pieces of a video is out of order?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from selfsup.nn import noise
from selfsup.nn.heads import classified, mlp
from selfsup.spec import ClipSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.tasks.video.frames import check_frames
from selfsup.views.image import Crop
from selfsup.views.video import ClipViews, Cut


class OddOneOut(Task):
    """Find the one of six pieces of a video whose frames are shuffled (Fernando et al., 2017, section 3).

    A piece is seen as its stack of differences, consecutive frames subtracted, the best encoding of the paper: each
    difference goes through the encoder as an image of its own, and the mean represents the piece. Pieces are fused by
    the sum of all pairwise differences of their representations. Which piece is odd is drawn for each video; chance is
    ln 6.

    Counter-measures: the mean difference of shuffled frames is larger, and uneven. The odd piece keeps its first and
    last frame, and `match_energy` scales every difference to the same root mean square.

    Batch: `clips` (B, 6, T, C, H, W) float; `noise` (B,) int64. Published: UCF101 60.3%, HMDB51 32.5%, fine-tuned.

    Deviations: differences go one by one through an image encoder, so that what is learned serves frames.

    Args:
        num_pieces: Pieces, one of which is odd, in [2, inf).
        length: Frames of a piece, in [4, inf).
        match_energy: Whether all differences are scaled to the same energy.
        min_scale: Smallest area of a crop as a fraction of the frame, in (0, 1].
        hidden_dim: Width of the head's hidden layer, in [1, inf).
    """

    paper = "Fernando et al., 2017"
    section = "video: order"
    kind = "video"
    default_encoder = "convnet"
    coupled = False
    counters = {"energy": {"match_energy": True}}  # noqa: RUF012

    def __init__(
        self,
        encoder: Encoder,
        *,
        num_pieces: int = 6,
        length: int = 6,
        match_energy: bool = True,
        min_scale: float = 0.5,
        hidden_dim: int = 256,
    ) -> None:
        super().__init__(encoder)
        check_frames(encoder)
        self.num_pieces, self.length, self.match_energy, self.min_scale = num_pieces, length, match_energy, min_scale
        self.head = mlp(encoder.dim, hidden_dim, num_pieces)

    def views(self, spec: ClipSpec) -> ClipViews:
        """Return pieces from anywhere in the video."""
        crop = Crop(spec.size, scale=(self.min_scale, 1), flip=0.5)
        return ClipViews(spec, {"clips": (crop, Cut(self.length, spec.step, self.num_pieces, "moving"))}, noise=True)

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy of the place of the odd piece."""
        pieces, label = self._shuffled(batch)
        return classified(self._logits(pieces), label)

    def _shuffled(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the pieces with one of each video shuffled, and its place (B,)."""
        clips, key = batch["clips"], batch["noise"]
        label = noise.integers(key, self.num_pieces, 1)[:, 0]
        inner = noise.shuffles(key, self.length - 2, stream=1)
        same = (inner == torch.arange(self.length - 2, device=key.device)).all(1, keepdim=True)
        inner = torch.where(same, inner.roll(1, 1), inner)  # a shuffle that changes nothing is no label
        ends = inner.new_tensor([0, self.length - 1]).expand(len(inner), -1)
        order = torch.cat([ends[:, :1], inner + 1, ends[:, 1:]], 1)
        row = torch.arange(len(clips), device=clips.device)
        odd = clips[row, label][row[:, None], order]
        pieces = clips.clone()
        pieces[row, label] = odd
        return pieces, label

    def _logits(self, pieces: Tensor) -> Tensor:
        apart = pieces.diff(dim=2)
        if self.match_energy:
            apart = apart / apart.square().mean((3, 4, 5), keepdim=True).sqrt().clamp_min(1e-3)
        each = self.encoder.frames(apart.flatten(0, 1)).mean(1).unflatten(0, pieces.shape[:2])
        weights = torch.arange(self.num_pieces - 1, -self.num_pieces, -2, device=each.device)  # of each in all pairs
        return self.head((each * weights[:, None]).sum(1))

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the pieces of each video, the odd one named, with `guess` beside the predicted probability."""
        pieces, label = self._shuffled(batch)
        captions = [["odd" if k == odd else "in order" for k in range(self.num_pieces)] for odd in label.tolist()]
        if guess:
            found = self._logits(pieces).softmax(1).tolist()
            captions = [
                [f"{c}, guess {p:.0%}" for c, p in zip(*row, strict=True)] for row in zip(captions, found, strict=True)
            ]
        return [
            [Panel(piece, caption) for piece, caption in zip(*row, strict=True)]
            for row in zip(pieces, captions, strict=True)
        ]
