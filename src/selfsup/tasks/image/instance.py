"""Instance discrimination (Wu et al., 2018): every image is a class of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from selfsup.base.distributed import gather
from selfsup.losses import info_nce, unit
from selfsup.nn.image.pairs import view_panels
from selfsup.source import Source
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task, one_each
from selfsup.views.image import ImageViews, preset


class Instance(Task):
    """Tell an image from all others by a memory bank of their embeddings (Wu et al., 2018, equation 2).

    The embeddings in the memory bank are moved towards the new ones after each step. The bank takes
    `num_items` · `out_dim` · 4 bytes. Chance is ln(`num_items`).

    Batch: `x` (B, C, H, W) float; `index` (B,) int64.
    Published: ImageNet, ResNet-50, linear, 54.0%; CIFAR-10, ResNet-18, kNN, 80.8%.

    Deviations: the full softmax, computed for a few rows at a time, instead of NCE with 4,096 negatives (the paper uses
    it on CIFAR-10); no proximal regularization.

    Args:
        num_items: Items in the memory bank, one for each sample, in [1, inf).
        temperature: Divides the cosine similarities; 0.07 in the paper, 0.1 on CIFAR-10, in (0, inf).
        momentum: Momentum of the embeddings in the memory bank, in [0, 1].
        out_dim: Dimension of the embedding that the loss compares, in [1, inf).
    """

    paper = "Wu et al., 2018"
    section = "images: contrastive"
    keeps_samples = True

    bank: Tensor

    def __init__(
        self, encoder: Encoder, *, num_items: int, temperature: float = 0.1, momentum: float = 0.5, out_dim: int = 128
    ) -> None:
        super().__init__(encoder)
        self.temperature, self.momentum = temperature, momentum
        self.projector = nn.Linear(encoder.dim, out_dim)
        self.register_buffer("bank", unit(torch.randn(num_items, out_dim)))
        self.seen: tuple[Tensor, Tensor] | None = None

    @classmethod
    def resolve(cls, source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
        """Make one item for each sample."""
        return one_each(source, given, "num_items")

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return one view with the augmentations of MoCo v2: those of this paper and blur."""
        return ImageViews(spec, {"x": replace(preset("mocov2", spec.size)["x"], count=1)})

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_dim), of unit length."""
        return unit(self.projector(self.encoder(x)))

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy of each image's own item in the memory bank."""
        z = self.embed(batch["x"])
        self.seen = batch["index"], z.detach()
        value = info_nce(z, self.bank, self.temperature, positive=batch["index"])
        return Loss(value, chance=math.log(len(self.bank)))

    def after_step(self) -> None:
        """Update the memory bank with the embeddings of the global batch."""
        if self.seen is not None:
            index, z = (gather(part) for part in self.seen)
            moved = self.momentum * self.bank[index] + (1 - self.momentum) * z
            self.bank[index] = unit(moved)
            self.seen = None

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the view of each image, which is its own label."""
        return view_panels(batch["x"][:, None], embed=self.embed if guess else None)
