"""Time-contrastive networks with a single camera (Sermanet et al., 2018): what is near in time looks alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from selfsup.base.distributed import gather
from selfsup.data.trajectory import Episodes, observations
from selfsup.errors import UserError
from selfsup.losses import semi_hard, unit
from selfsup.source import Source
from selfsup.spec import TrajectorySpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.tasks.control.embedding import Embedding, PoseHead, map_channels
from selfsup.tasks.control.multi_view import group_of
from selfsup.views.image import Crop
from selfsup.views.trajectory import NearViews

SLACK = 1e-3  # seconds by which times that are meant to be the same may differ


class TCNSingle(Task):
    """Tell observations that are near in time from later ones of the same episode (Sermanet et al., 2018, III-B).

    Semi-hard triplets of normalized embeddings: every observation of the batch is an anchor, its positives are those
    at most `positive` seconds away, its negatives those of the same episode that are more than `negative` seconds away.
    Chance, a guess that ignores the observation, is `margin`.

    The representation is the embedding of the paper, `out_dim` numbers; `encoder` is the encoder inside of it.

    Batch: `near` (B, 2, C, H, W) float, an observation and another one near it; `time` (B, 2) float, seconds;
    `episode` (B,) int64.

    Deviations: as `tcn`; a batch holds several episodes, not one window of one.

    Args:
        positive: Seconds up to which an observation is a positive, in (0, inf).
        negative: Seconds from which on it is a negative, in (0, inf).
        margin: Margin of the triplets, in (0, 4].
        group_size: Pairs of one episode that are together in a batch, in [2, inf).
        pad: Largest shift in pixels, in [0, inf).
        conv_dim: Channels of the convolutions behind the encoder; 512 in the paper, in [1, inf).
        hidden_dim: Units between them and the embedding; 2048 in the paper, in [1, inf).
        out_dim: Dimension of the embedding, in [1, inf).
    """

    paper = "Sermanet et al., 2018"
    section = "control: correspondence"
    kind = "trajectory"
    default_encoder = "convnet"
    defaults = {"batch_size": 32}  # noqa: RUF012

    def __init__(
        self,
        encoder: Encoder,
        *,
        positive: float = 0.2,
        negative: float = 0.4,
        margin: float = 0.2,
        group_size: int = 16,
        pad: int = 4,
        conv_dim: int = 64,
        hidden_dim: int = 256,
        out_dim: int = 32,
    ) -> None:
        super().__init__(encoder)
        self.head, self.out_dim = PoseHead(map_channels(encoder), conv_dim, hidden_dim, out_dim), out_dim
        self.positive, self.negative, self.margin = positive, negative, margin
        self.group_size, self.pad = group_size, pad

    def representation(self) -> Encoder:
        """Return the embedding, with the encoder inside."""
        return Embedding(self.encoder, self.head, self.out_dim)

    @classmethod
    def resolve(cls, source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the size of groups where half of the episodes are shorter than the default."""
        return group_of(source, given, cls)

    def samples(self, source: Source) -> Source:
        """Return every moment, some of one episode together in a batch. Raises `UserError` where all are too short."""
        assert isinstance(source, Episodes)
        seconds = (int(source.extents.max()) - 1) / source.fps
        if seconds <= self.negative:
            raise UserError(
                f"no episode of {source.name} is longer than {seconds:.3g} s, and negatives are more than --negative "
                f"{self.negative} s away: give a smaller one"
            )
        return observations(source, self.group_size)

    def views(self, spec: TrajectorySpec) -> NearViews:
        """Return two observations near each other, shifted, and with other colours for each."""
        crop = Crop(spec.size, pad=self.pad, jitter=(0.2, 0.2, 0.2, 0.05))
        return NearViews(spec, crop, within=self.positive)

    def loss(self, batch: Batch) -> Loss:
        """Return the loss of all anchors and positives, and how much nearer positives are than negatives."""
        z = gather(self._embed(batch)).flatten(0, 1)
        time, episode = gather(batch["time"]).flatten(), gather(batch["episode"]).repeat_interleave(2)
        apart = (time[:, None] - time).abs()
        same = episode[:, None] == episode
        itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
        positive = same & (apart <= self.positive + SLACK) & ~itself
        negative = same & (apart > self.negative + SLACK)
        value = semi_hard(z, z, positive, negative, self.margin)
        distance = torch.cdist(z.detach(), z.detach())
        near, far = (distance[pairs].sum() / pairs.sum().clamp_min(1) for pairs in (positive, negative))
        return Loss(value, {"near": near, "far": far}, self.margin)

    def _embed(self, batch: Batch) -> Tensor:
        """Return (B, 2, out_dim), of unit length."""
        near = batch["near"]
        return unit(self.head(self.encoder.maps(near.flatten(0, 1)))).unflatten(0, near.shape[:2])

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the two observations of each sample, with `guess` beside their distance."""
        captions = [[f"{time:.2f} s" for time in row] for row in batch["time"].tolist()]
        if guess:
            z = self._embed(batch)
            distances = (z[:, 0] - z[:, 1]).norm(dim=1).tolist()
            captions = [[a, f"{b}, distance {far:.2f}"] for (a, b), far in zip(captions, distances, strict=True)]
        return [
            [Panel(x, caption) for x, caption in zip(*row, strict=True)]
            for row in zip(batch["near"], captions, strict=True)
        ]
