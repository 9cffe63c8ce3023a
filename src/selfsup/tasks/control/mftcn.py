"""Multi-frame time-contrastive networks, mfTCN (Dwibedi et al., 2018): several frames show how things move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from selfsup.data.trajectory import Episodes, observations
from selfsup.errors import UserError
from selfsup.source import Source
from selfsup.spec import TrajectorySpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.tasks.control.embedding import Embedding, MotionHead, map_channels
from selfsup.tasks.control.multi_view import group_of, moment_panels, same_moment
from selfsup.views.image import Crop
from selfsup.views.trajectory import SyncViews


class MFTCN(Task):
    """Find the same few frames in what another camera sees, among others (Dwibedi et al., 2018, section III).

    An observation is `stack` frames that follow one another, so that the embedding can tell how things move and not
    only where they are: each frame goes through the encoder, and convolutions over time and place join their maps. The
    loss is that of `tcn`, n-pairs with unnormalized embeddings. Chance is the mean ln of the number of candidates.

    The representation is the embedding of the paper, `out_dim` numbers; `encoder` is the encoder inside of it.

    Batch: `views` (B, K, stack · C, H, W) float, K cameras at one moment; `time` (B,) float, seconds; `episode` (B,)
    int64.

    Deviations: as `tcn`; the frames follow one another without a stride: record fewer a second to look back further.

    Args:
        same_episode: Whether negatives are other moments of the same episode alone.
        group_size: Moments of one episode that are together in a batch, in [1, inf).
        regularizer: Weight of the squared lengths of embeddings, in [0, inf).
        pad: Largest shift in pixels, in [0, inf).
        conv_dim: Channels of the convolutions behind the encoder, in [1, inf).
        hidden_dim: Units between them and the embedding, in [1, inf).
        out_dim: Dimension of the embedding, in [1, inf).
    """

    paper = "Dwibedi et al., 2018"
    section = "control: correspondence"
    kind = "trajectory"
    default_encoder = "frames:convnet"
    small_encoder = "frames:convnet"
    defaults = {"batch_size": 32}  # noqa: RUF012
    data_defaults = {"stack": 5}  # noqa: RUF012

    def __init__(
        self,
        encoder: Encoder,
        *,
        same_episode: bool = True,
        group_size: int = 16,
        regularizer: float = 0.002,
        pad: int = 4,
        conv_dim: int = 64,
        hidden_dim: int = 256,
        out_dim: int = 32,
    ) -> None:
        if not hasattr(encoder, "frame_maps"):
            raise UserError("mftcn sees frames one by one: give --encoder frames:convnet, or frames: and another one")
        super().__init__(encoder)
        frames = self.encoder.spec.stack
        channels = map_channels(encoder) // frames
        self.head, self.out_dim = MotionHead(channels, frames, conv_dim, hidden_dim, out_dim), out_dim
        self.same_episode, self.group_size, self.regularizer, self.pad = same_episode, group_size, regularizer, pad

    def representation(self) -> Encoder:
        """Return the embedding, with the encoder inside."""
        return Embedding(self.encoder, self.head, self.out_dim, "frame_maps")

    @classmethod
    def resolve(cls, source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the size of groups where half of the episodes are shorter than the default."""
        return group_of(source, given, cls)

    def samples(self, source: Source) -> Source:
        """Return every moment, some of one episode together in a batch."""
        assert isinstance(source, Episodes)
        return observations(source, self.group_size)

    def views(self, spec: TrajectorySpec) -> SyncViews:
        """Return what all cameras see, all frames of one shifted alike."""
        return SyncViews(spec, crop=Crop(spec.size, pad=self.pad, jitter=(0.2, 0.2, 0.2, 0.05)))

    def loss(self, batch: Batch) -> Loss:
        """Return the loss of all pairs of cameras, and how often the nearest moment is the right one."""
        return same_moment(self._embed(batch), batch["episode"], "npairs", 0.0, self.regularizer, self.same_episode)

    def _embed(self, batch: Batch) -> Tensor:
        """Return (B, K, out_dim)."""
        views = batch["views"]
        return self.head(self.encoder.frame_maps(views.flatten(0, 1))).unflatten(0, views.shape[:2])

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return what the cameras see at each moment, with `guess` also the nearest view of the second camera."""
        return moment_panels(batch, self.encoder.spec.cameras, self._embed(batch) if guess else None)
