"""The heads and distances of `distill`: a student's features beside those of its teacher."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.losses import full, product
from selfsup.nn.heads import mlp
from selfsup.nn.modes import tried_out
from selfsup.nn.norm import BatchNorm
from selfsup.tasks.image.distill_teacher import has_places, represent


def distance(s: Tensor, t: Tensor, match: str) -> Tensor:
    """Return the mean distance of rows (N, d) of the student and the teacher: by `match` mse, or 1 - cosine."""
    return F.mse_loss(s, t) if match == "mse" else 1 - F.cosine_similarity(s, t).mean()


def relation(s: Tensor, t: Tensor, rows: Tensor, temperatures: tuple[float, float]) -> Tensor:
    """Return SEED's loss on unit vectors (B, d) of the student and the teacher (Fang et al., 2021).

    Each has similarities to the teacher's own vector and to `rows` (K, d) of past images, divided by the temperatures
    of student and teacher: the cross-entropy of the student's with the teacher's.
    """
    of_student, of_teacher = (
        torch.cat([(q * t).sum(1, keepdim=True), product(q, rows.T)], 1) / temperature
        for q, temperature in zip((s, t), temperatures, strict=True)
    )
    return F.cross_entropy(of_student, of_teacher.softmax(1))


class Heads(nn.Module):
    """A head on the representation of an encoder, and a linear one on its places where it and the teacher have some.

    `dim` and `width` are those of the teacher; with `hidden_dim` 0 the first head is linear too. The teacher's features
    are standardized by BatchNorm without weights.
    """

    def __init__(self, encoder: Any, dim: int, width: int, hidden_dim: int) -> None:
        super().__init__()
        self.projector = mlp(encoder.dim, *[hidden_dim] * (hidden_dim > 0), dim)
        self.norm = BatchNorm(dim, affine=False)
        self.places = width > 0 and has_places(encoder)
        if self.places:
            self.patch_projector = nn.Linear(width_of(encoder), width)
            self.patch_norm = BatchNorm(width, affine=False)

    def forward(self, z: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """(B, d), (B, dim) -> the student's guess and the teacher's standardized features, (B, dim) both."""
        return full(self.projector(z)), full(self.norm(target))

    def at_places(self, maps: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C', h', w') of the student, (B, width, h, w) of the teacher -> both (B · h · w, width)."""
        maps = F.interpolate(full(maps), places.shape[2:], mode="bilinear", antialias=True)
        own, other = (x.flatten(2).transpose(1, 2).flatten(0, 1) for x in (maps, places))
        return full(self.patch_projector(own)), full(self.patch_norm(other))


def width_of(encoder: Any) -> int:
    """Return the channels of an encoder's map."""
    with tried_out(encoder):
        _, maps = represent(encoder, encoder.spec.example(2))
    assert maps is not None
    return maps.shape[1]
