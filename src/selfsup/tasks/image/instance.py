"""Instance discrimination (Wu et al., 2018): every image is a class of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from selfsup.losses import info_nce, unit
from selfsup.nn.distributed import gather
from selfsup.nn.image.pairs import view_panels
from selfsup.source import Source
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.image import ImageViews, preset


class Instance(Task):
    """Tell an image from all `items` others by a memory of their embeddings (Wu et al., 2018, equation 2).

    The memory is updated with `momentum` after each step. Chance is ln `items`. Memory: `items` · `dim` · 4 bytes.

    Batch: `x` (B, C, H, W) float; `index` (B,) int64. Published: ImageNet, ResNet-50, linear, 54.0%; CIFAR-10,
    ResNet-18, kNN, 80.8%.

    Deviations: the whole softmax, made for a few rows at a time, in place of NCE with 4,096 negatives (the paper does
    so on CIFAR-10); temperature 0.1 as there (ImageNet: 0.07); no proximal term.
    """

    paper = "Wu et al., 2018"
    section = "images: contrastive"
    keeps_samples = True

    bank: Tensor

    def __init__(
        self, encoder: Encoder, *, items: int, temperature: float = 0.1, momentum: float = 0.5, dim: int = 128
    ) -> None:
        super().__init__(encoder)
        self.temperature, self.momentum = temperature, momentum
        self.projector = nn.Linear(encoder.dim, dim)
        self.register_buffer("bank", unit(torch.randn(items, dim)))
        self.seen: tuple[Tensor, Tensor] | None = None

    @classmethod
    def resolve(cls, source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
        """One item a sample."""
        return {"items": len(source)}

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return one crop with changes of colour; MoCo's, which are those of this paper and a blur."""
        return ImageViews(spec, {"x": replace(preset("mocov2", spec.size)["x"], count=1)})

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, dim), of unit length."""
        return unit(self.projector(self.encoder(x)))

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy of each image's own place in the memory."""
        z = self.embed(batch["x"])
        self.seen = batch["index"], z.detach()
        value = info_nce(z, self.bank, self.temperature, positive=batch["index"])
        return Loss(value, chance=math.log(len(self.bank)))

    def after_step(self) -> None:
        """Move the memory of the images of the global batch."""
        if self.seen is not None:
            index, z = (gather(part) for part in self.seen)
            moved = self.momentum * self.bank[index] + (1 - self.momentum) * z
            self.bank[index] = unit(moved)
            self.seen = None

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return each image, whose label is itself."""
        return view_panels(batch["x"][:, None], embed=self.embed if guess else None)
