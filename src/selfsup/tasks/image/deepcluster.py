"""DeepCluster v2 (Caron et al., 2018; 2020): the clusters of the last epoch's embeddings are this epoch's labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.base.distributed import from_first, gather
from selfsup.losses import product, sinkhorn, unit
from selfsup.nn.heads import each_view, mlp
from selfsup.nn.image.pairs import view_panels
from selfsup.nn.kmeans import spherical_kmeans
from selfsup.source import Source
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task, at_most_samples, one_each
from selfsup.views.image import ImageViews, multi_crop


class DeepCluster(Task):
    """Classify every view into its image's cluster (Caron et al., 2020, appendix D: DeepCluster-v2). Chance is ln K.

    After each epoch the embeddings of that epoch are clustered by spherical k-means, several times, on the first and
    the second large view in turn; the centroids are the weights of the classifiers, fixed during the next epoch.
    Empty clusters are reassigned (Caron et al., 2018, section 3.3).

    The metric `clusters` is the number of different labels in a batch, `largest` the fraction of it that the most
    frequent one has, both averaged over the heads. If everything falls into one cluster they are 1.

    Batch: `x` (B, 2, C, H, W) float; `local` (B, 6, C, h, w) float; `index` (B,) int64.
    Published: ImageNet, ResNet-50, 800 epochs, linear, 75.2%; CIFAR-10, ResNet-18, 1,000 epochs, 88.9%.
    Deviations: fewer clusters, a narrower projector and `swav`'s larger crops, to suit small data. During the first
    epoch, for which the paper clusters the embeddings of an extra pass over the data, the centroids are random, and a
    batch's first views are assigned to them so that all are used equally (`selfsup.losses.sinkhorn`, as in SwAV): by
    the nearest centroid alone, one of them has everything after a few steps.

    Args:
        num_items: Number of samples, in [1, inf).
        num_clusters: Clusters K, by default at most one for two samples; 3,000 in the paper, in [2, inf).
        num_heads: Number of clusterings, each with its own classifier, in [1, inf).
        temperature: Divides the cosine similarities to the centroids, in (0, inf).
        hidden_dim: Width of the projector's hidden layer; 2048 in the paper, in [1, inf).
        out_dim: Dimension of the embedding, in [1, inf).
    """

    paper = "Caron et al., 2018"
    section = "images: clustering"
    keeps_samples = True

    bank: Tensor
    centroids: Tensor
    labels: Tensor
    step: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        num_items: int,
        num_clusters: int = 100,
        num_heads: int = 3,
        temperature: float = 0.1,
        hidden_dim: int = 512,
        out_dim: int = 128,
    ) -> None:
        super().__init__(encoder)
        self.temperature = temperature
        self.projector = mlp(encoder.dim, hidden_dim, out_dim)
        self.register_buffer("bank", torch.zeros(2, num_items, out_dim))
        self.register_buffer("centroids", unit(torch.randn(num_heads, num_clusters, out_dim)))
        self.register_buffer("labels", torch.full((num_heads, num_items), -1))
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        self.seen: tuple[Tensor, Tensor] | None = None

    @classmethod
    def resolve(cls, source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the number of samples, and by default a cluster for two of them at most."""
        return one_each(source, given, "num_items") | at_most_samples(source, given, cls, "num_clusters", per=2)

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return `swav`'s two large and six small views."""
        return ImageViews(spec, multi_crop(spec.size, 6, getattr(self.encoder, "patch", 0), name="swav"))

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_dim), of unit length."""
        return unit(self.projector(self.encoder(x)))

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy of all views against their image's clusters, averaged over the heads."""
        z = torch.cat([each_view(self.embed, batch[key]) for key in ("x", "local")])  # (V, B, out_dim)
        self.seen = batch["index"], z[:2].detach().transpose(0, 1)
        logits = product(z, self.centroids.mT[:, None]) / self.temperature  # (heads, V, B, K)
        label = self.labels[:, batch["index"]]  # (heads, B)
        label = torch.where(label < 0, balanced(logits[:, 0] * self.temperature), label)
        value = F.cross_entropy(logits.flatten(0, 2), label[:, None].expand(logits.shape[:3]).flatten())
        sizes = F.one_hot(label, logits.shape[3]).sum(1).float()  # (heads, K)
        metrics = {"clusters": (sizes > 0).float().sum(1).mean(), "largest": sizes.amax(1).mean() / label.shape[1]}
        return Loss(value, metrics, math.log(logits.shape[3]))

    @torch.no_grad()
    def after_step(self) -> None:
        """Store the embeddings of the global batch; after an epoch, cluster them."""
        if self.seen is None:
            return
        index, z = (gather(part) for part in self.seen)
        self.bank[:, index] = z.transpose(0, 1)
        self.seen = None
        self.step += 1
        epoch, rest = divmod(int(self.step), max(1, self.bank.shape[1] // len(index)))
        if rest:
            return
        for head in range(len(self.centroids)):
            bank = self.bank[head % 2]
            known = bank.abs().sum(1) > 0  # the last, incomplete batch of an epoch is dropped
            seed = epoch * len(self.centroids) + head
            # from new rows: from the last centroids the clusters hardly change, and the features lose rank
            centroids, label = spherical_kmeans(bank[known], self.centroids.shape[1], seed)
            # on a GPU sums differ from one process to the next, and with them the labels
            self.centroids[head], self.labels[head, known] = from_first(centroids), from_first(label)

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the large and small views of each image."""
        return view_panels(batch["x"], batch["local"], embed=self.embed if guess else None)


def balanced(cosine: Tensor) -> Tensor:
    """(heads, B, K) -> (heads, B) int64: the clusters of a batch's samples, all of about the same size."""
    return torch.stack([sinkhorn(of_head.detach(), 0.02) for of_head in cosine]).argmax(2)
