"""Self-distillation with an EMA teacher over prototypes: parts shared by DINO and its successors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from selfsup.errors import UserError
from selfsup.losses import product, unit
from selfsup.nn.image.masks import one_of_two_masked, only
from selfsup.nn.norm import BatchNorm
from selfsup.task import Batch, Panel


def bottleneck(dim: int, hidden: int, out: int, norm: bool = False) -> nn.Sequential:
    """Return DINO's head without the prototypes: three linear layers with GELU, and BatchNorm if `norm`."""
    layers: list[nn.Module] = []
    for before in (dim, hidden):
        layers += [nn.Linear(before, hidden), *([BatchNorm(hidden)] if norm else []), nn.GELU()]
    for module in (head := nn.Sequential(*layers, nn.Linear(hidden, out))):
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    return head


class Prototypes(nn.Module):
    """(B, dim) -> (B, K): the cosine to each of K directions."""

    def __init__(self, dim: int, count: int) -> None:
        super().__init__()
        if count < 2:
            raise UserError(f"--num-prototypes must be at least 2, not {count}")
        self.weight = nn.Parameter(nn.init.trunc_normal_(torch.empty(count, dim), std=0.02))

    def forward(self, z: Tensor) -> Tensor:
        """Return the cosines, in at least float32."""
        return product(unit(z), unit(self.weight).T)


class Temperatures(NamedTuple):
    """What divides the cosines: of the student, and of the teacher at the start and after the fraction `warmup`."""

    student: float
    first: float
    last: float
    warmup: float

    def teacher(self, progress: float) -> float:
        """Return the teacher's, which goes from `first` to `last` linearly in the progress of the training, 0 to 1."""
        return (
            self.first + (self.last - self.first) * min(1.0, progress / self.warmup) if self.warmup > 0 else self.last
        )


def mask_range(least: float, most: float) -> tuple[float, float]:
    """Return the range of the fraction of patches that are masked; raise `UserError` unless it is one below 1."""
    if not 0 <= least <= most < 1:
        raise UserError(f"--min-mask-ratio {least} must be at most --max-mask-ratio {most}, and both must be in [0, 1)")
    return least, most


def crop_by_crop(crops: Tensor) -> Tensor:
    """(B, V, C, h, w) -> (V · B, C, h, w): the first crops of all images, then the second ones."""
    return crops.transpose(0, 1).flatten(0, 1)


def half_masked(batch: Batch, grid: int, ratios: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Return the large crops (2B, C, H, W), and a mask (2B, N) of patches in one of each image's two crops."""
    return crop_by_crop(batch["x"]), one_of_two_masked(batch["noise"], grid, *ratios)


def pooled_and_masked(
    encoder: Any, large: Tensor, mask: Tensor, mask_token: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the pooled output of large crops (2B, dim), and the tokens of their n masked patches (n, dim).

    The student sees `mask_token` (dim,) in place of these patches; without one, as the teacher, all of the crop.
    """
    hidden = {} if mask_token is None else {"mask": mask, "mask_token": mask_token[None]}
    tokens = encoder.tokens(large, **hidden)
    return encoder.pool(tokens), tokens[:, encoder.prefix :][mask]


def of_student(encoder: Any, batch: Batch, large: Tensor, mask: Tensor, mask_token: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pooled outputs of all crops (V · B, dim), large ones first, and the patches of these (2B, N, dim)."""
    tokens = encoder.tokens(large, mask=mask, mask_token=mask_token[None])
    small = [encoder(crop_by_crop(batch["local"]))] if "local" in batch else []
    return torch.cat([encoder.pool(tokens), *small]), tokens[:, encoder.prefix :]


def masked_entropy(targets: Tensor, logits: Tensor, temperature: float, mask: Tensor) -> Tensor:
    """Return the mean cross-entropy over masked patches, with equal weight for each crop (Zhou et al., 2022, eq. 2).

    `mask` (B, N) bool is true at n patches, in half of its rows; `targets` and `logits` (n, K) are for these patches in
    row-major order. Chance is ln K.
    """
    losses = -(targets * (logits / temperature).log_softmax(1)).sum(1)
    weights = (mask / mask.sum(1, keepdim=True).clamp_min(1))[mask]
    return (losses * weights).sum() * 2 / len(mask)


def crop_panels(batch: Batch, mask: Tensor | None = None, names: Sequence[str] = ()) -> list[list[Panel]]:
    """Return a row for each image: its large crops without masked patches, and its small ones, captioned by `names`."""
    large = crop_by_crop(batch["x"])
    shown = [*(large if mask is None else only(large, ~mask))]
    shown += [*crop_by_crop(batch["local"])] if "local" in batch else []
    masked = [0] * len(large) if mask is None else mask.sum(1).tolist()
    count, panels = len(batch["x"]), []
    for place, image in enumerate(shown):
        words = [f"large {place // count + 1}" if place < len(large) else f"small {place // count - 1}"]
        words += [f"{masked[place]} patches masked"] if place < len(large) and masked[place] else []
        words += [names[place]] if place < len(names) else []
        panels.append(Panel(image, "; ".join(words)))
    return [panels[row::count] for row in range(count)]


def patch_panels(batch: Batch, mask: Tensor, student: Tensor, teacher: Tensor) -> list[list[Panel]]:
    """Return `crop_panels`; logits (n, K) of the masked patches say on how many of them student and teacher agree."""
    agree = torch.zeros_like(mask).masked_scatter_(mask, student.argmax(1) == teacher.argmax(1)).sum(1).tolist()
    return crop_panels(batch, mask, [f"{count} agree with the teacher" for count in agree])
