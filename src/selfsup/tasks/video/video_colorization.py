"""Video colorization (Vondrick et al., 2018): tracking emerges from copying colours of an earlier frame."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import entropy
from sklearn.cluster import KMeans
from torch import Tensor, nn

from selfsup.errors import UserError
from selfsup.losses import full
from selfsup.nn.image import lab
from selfsup.source import Source
from selfsup.spec import ClipSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.image import Crop
from selfsup.views.video import ClipViews, Cut

SAMPLE = 64  # videos of which the clusters of colours are found


class VideoColorization(Task):
    """Colour a frame by pointing to where its colours were before (Vondrick et al., 2018, section 3).

    Features of all frames see their lightness alone. Each place j of the target frame attends to all places i of the
    reference frames, A_ij = softmax_i(f_i · f_j / temperature), and its predicted colour is the sum of theirs, Σ A_ij
    c_i, with c the one of 16 clusters of ab; the loss is the cross-entropy. Chance is the entropy of the clusters. At
    test time masks are carried instead of colours.

    Counter-measures: features of grey frames only; the clusters have no lightness. A sprite's lightness may still tell
    its colour: `moving` draws them apart.

    Batch: `clip` (B, references + 1, C, H, W) float, the last frame the target. Published: DAVIS 2017 J 34.6, F 32.7.

    Deviations: a convolution on the encoder's maps where the paper has five 3-D convolutions over four frames.

    Args:
        num_references: Frames whose colours are known, in [1, inf).
        num_clusters: Clusters of colours, in [2, inf).
        out_dim: Width of the features that are compared, in [1, inf).
        temperature: Divisor of the similarities, in (0, inf).
        min_scale: Smallest area of a crop as a fraction of the frame, in (0, 1].
    """

    paper = "Vondrick et al., 2018"
    section = "video: colorization"
    kind = "video"
    default_encoder = "convnet"
    coupled = False
    centres: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        num_references: int = 3,
        num_clusters: int = 16,
        out_dim: int = 64,
        temperature: float = 1.0,
        min_scale: float = 0.5,
    ) -> None:
        super().__init__(encoder)
        if encoder.spec.channels != 3 or not hasattr(getattr(encoder, "image", None), "maps"):
            raise UserError(
                "video_colorization needs colours and feature maps of frames: --channels 3 and --encoder convnet"
            )
        self.num_references, self.temperature, self.min_scale = num_references, temperature, min_scale
        self.register_buffer("centres", torch.zeros(num_clusters, 2))
        self.chance = math.log(num_clusters)
        with torch.no_grad():
            width = self.encoder.frame_maps(encoder.spec.example(2)[:, :1]).shape[2]
        self.head = nn.Conv2d(width, out_dim, 1)

    def samples(self, source: Source) -> Source:
        """Find the clusters of colours in up to 64 videos."""
        spec: ClipSpec = self.encoder.spec
        some = np.linspace(0, len(source) - 1, min(len(source), SAMPLE)).astype(np.int64)
        views = ClipViews(spec, {"x": (Crop(spec.size), Cut(2, 1, at="even"))}).for_device("cpu")
        x = views.finish(views.fetch(source, some, 0, 0).batch)["x"].flatten(0, 1)
        ab = lab.ab_at(lab.to_light(x, spec.image), spec.size // 4).permute(0, 2, 3, 1).reshape(-1, 2)
        found = KMeans(len(self.centres), n_init=1, random_state=0).fit(ab.numpy())
        self.centres.copy_(torch.from_numpy(found.cluster_centers_))
        counts = np.bincount(found.labels_)
        self.chance = float(entropy(counts / counts.sum()))
        return source

    def views(self, spec: ClipSpec) -> ClipViews:
        """Return reference frames and the frame after them."""
        crop = Crop(spec.size, scale=(self.min_scale, 1), flip=0.5)
        return ClipViews(spec, {"clip": (crop, Cut(self.num_references + 1, spec.step, at="moving"))})

    def light(self, clip: Tensor) -> Tensor:
        """(B, T, C, H, W) -> (B · T, C, H, W): linear light."""
        return lab.to_light(clip.flatten(0, 1), self.encoder.spec.image)

    def features(self, clip: Tensor) -> Tensor:
        """(B, T, C, H, W) -> (B, T, out_dim, h, w), from the lightness of each frame alone."""
        grey = lab.grey(self.light(clip), self.encoder.spec.image).unflatten(0, clip.shape[:2])
        maps = self.encoder.frame_maps(grey)
        return self.head(maps.flatten(0, 1)).unflatten(0, maps.shape[:2])

    def _predict(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """Return probabilities of the clusters (B, K, n) at places of the target frame, and the true ones (B, n)."""
        features = self.features(clip)
        ab = lab.ab_at(self.light(clip), features.shape[-1])
        near = torch.cdist(ab.permute(0, 2, 3, 1).reshape(len(ab), -1, 2), self.centres).argmin(2)
        cluster = near.unflatten(0, clip.shape[:2])  # (B, T, n)
        reference, target = features[:, :-1].transpose(1, 2).flatten(2), features[:, -1].flatten(2)
        attention = full(target.transpose(1, 2) @ reference / self.temperature).softmax(2)  # (B, n, references · n)
        colours = F.one_hot(cluster[:, :-1].flatten(1), len(self.centres)).to(attention.dtype)
        return (attention @ colours).transpose(1, 2), cluster[:, -1]

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy of the clusters of the target frame."""
        found, cluster = self._predict(batch["clip"])
        value = F.nll_loss(found.clamp_min(1e-6).log(), cluster)
        right = (found.argmax(1) == cluster).float().mean()
        return Loss(value, {"accuracy": right}, self.chance)

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the last reference frame, the target in grey and in the colours of its clusters.

        With `guess` also in the colours that are copied.
        """
        clip, spec = batch["clip"], self.encoder.spec.image
        found, cluster = self._predict(clip)
        light, side = self.light(clip[:, -1:]), round(cluster.shape[1] ** 0.5)
        columns = [(clip[:, -2], "reference"), (lab.grey(light, spec), "in: lightness")]
        colours = {"label": self.centres[cluster]} | ({"guess": found.mT @ self.centres} if guess else {})
        for caption, ab in colours.items():  # (B, n, 2)
            columns.append((lab.painted(light, ab.mT.unflatten(2, (side, side)), spec), caption))
        return [[Panel(images[row][None], caption) for images, caption in columns] for row in range(len(clip))]
