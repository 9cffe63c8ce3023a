"""Time-contrastive networks, TCN (Sermanet et al., 2018): the same moment looks alike to every camera."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from selfsup.data.trajectory import Episodes, observations
from selfsup.source import Source
from selfsup.spec import TrajectorySpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.tasks.control.embedding import Embedding, PoseHead, map_channels
from selfsup.tasks.control.multi_view import Objective, group_of, moment_panels, same_moment
from selfsup.views.image import Crop
from selfsup.views.trajectory import SyncViews


class TCN(Task):
    """Find the same moment in what another camera sees, among other moments (Sermanet et al., 2018, section III-A).

    What all cameras see at one moment is the same pose of the same scene; a moment later the scene is the same, and
    only the pose is another. So with negatives from other times of the same episode an embedding has to tell how the
    scene is posed, whatever it looks like and from where. The loss is multi-class n-pairs with unnormalized
    embeddings, as in the authors' code, or semi-hard triplets of normalized ones. Chance is the mean ln of the number
    of candidates, or `margin`.

    The representation is the embedding of the paper, `out_dim` numbers; `encoder` is the encoder inside of it.

    Batch: `views` (B, K, C, H, W) float, K cameras at one moment; `time` (B,) float, seconds; `episode` (B,) int64.

    Deviations: the encoder is trained from scratch, and the layers behind it are narrower; every ordered pair of
    cameras is compared; shifts in place of crops.

    Args:
        objective: npairs or triplet.
        same_episode: Whether negatives are other moments of the same episode alone.
        group_size: Moments of one episode that are together in a batch, and candidates of each other; 32 of 32 in the
            paper, 1 for moments from anywhere, in [1, inf).
        margin: Margin of the triplets, in [0, 4].
        regularizer: Weight of the squared lengths of embeddings in n-pairs, in [0, inf).
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
        objective: Objective = "npairs",
        same_episode: bool = True,
        group_size: int = 16,
        margin: float = 0.2,
        regularizer: float = 0.002,
        pad: int = 4,
        conv_dim: int = 64,
        hidden_dim: int = 256,
        out_dim: int = 32,
    ) -> None:
        super().__init__(encoder)
        self.head, self.out_dim = PoseHead(map_channels(encoder), conv_dim, hidden_dim, out_dim), out_dim
        self.objective: Objective = objective
        self.same_episode, self.group_size, self.pad = same_episode, group_size, pad
        self.margin, self.regularizer = margin, regularizer

    def representation(self) -> Encoder:
        """Return the embedding, with the encoder inside."""
        return Embedding(self.encoder, self.head, self.out_dim)

    @classmethod
    def resolve(cls, source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the size of groups where half of the episodes are shorter than the default."""
        return group_of(source, given, cls)

    def samples(self, source: Source) -> Source:
        """Return every moment, some of one episode together in a batch."""
        assert isinstance(source, Episodes)
        return observations(source, self.group_size)

    def views(self, spec: TrajectorySpec) -> SyncViews:
        """Return what all cameras see, shifted, and with other colours for each."""
        return SyncViews(spec, crop=Crop(spec.size, pad=self.pad, jitter=(0.2, 0.2, 0.2, 0.05)))

    def loss(self, batch: Batch) -> Loss:
        """Return the loss of all pairs of cameras, and how often the nearest moment is the right one."""
        return same_moment(
            self._embed(batch), batch["episode"], self.objective, self.margin, self.regularizer, self.same_episode
        )

    def _embed(self, batch: Batch) -> Tensor:
        """Return (B, K, out_dim)."""
        views = batch["views"]
        return self.head(self.encoder.maps(views.flatten(0, 1))).unflatten(0, views.shape[:2])

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return what the cameras see at each moment, with `guess` also the nearest view of the second camera."""
        return moment_panels(batch, self.encoder.spec.cameras, self._embed(batch) if guess else None)
