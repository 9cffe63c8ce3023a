"""A student and a slow teacher that sort views into prototypes: parts of DINO and what came of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from selfsup.errors import UserError
from selfsup.losses import product, unit
from selfsup.nn.image.masks import one_of_two_masked, only
from selfsup.nn.norm import BatchNorm
from selfsup.task import Batch, Panel


def bottleneck(dim: int, hidden: int, out: int, norm: bool = False) -> nn.Sequential:
    """Return the head without its last layer: three linear layers with GELU, with BatchNorm or without."""
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
            raise UserError(f"--prototypes must be at least 2, not {count}")
        self.weight = nn.Parameter(nn.init.trunc_normal_(torch.empty(count, dim), std=0.02))

    def forward(self, z: Tensor) -> Tensor:
        """Return the cosines, in float32 at least."""
        return product(unit(z), unit(self.weight).T)


def prototype_head(dim: int, hidden: int, out: int, prototypes: int) -> nn.Sequential:
    """Return the whole head: (B, dim) -> (B, prototypes)."""
    return nn.Sequential(bottleneck(dim, hidden, out), Prototypes(out, prototypes))


def check_options(*temperatures: float, least: float = 0.0, most: float = 0.0) -> None:
    """Raise `UserError` for a temperature that is not above 0, or shares of hidden patches that leave none to see."""
    if min(temperatures) <= 0:
        raise UserError("a temperature must be above 0")
    if not 0 <= least <= most < 1:
        raise UserError(f"--least {least} to --most {most} is no share of the patches: 0 ≤ least ≤ most < 1")


def risen(first: float, last: float, progress: float, until: float) -> float:
    """Return a value that rises from `first` to `last` in a straight line until the share `until` of the training."""
    return first + (last - first) * min(1.0, progress / until) if until > 0 else last


def half_masked(batch: Batch, grid: int, least: float, most: float) -> tuple[Tensor, Tensor]:
    """Return the large crops (2B, C, H, W), and the patches (2B, N) that are hidden in one of each image's two."""
    mask = one_of_two_masked(batch["noise"], grid, least, most)
    return batch["x"].transpose(0, 1).flatten(0, 1), mask


def masked_entropy(targets: Tensor, logits: Tensor, temperature: float, mask: Tensor) -> Tensor:
    """Return the mean cross-entropy of hidden patches, all masked crops with one weight (Zhou et al., 2022, eq. 2).

    `mask` (B, N) bool, true at n places in half of its rows; `targets` and `logits` (n, K) are those of its true places
    in reading order. Chance is ln K.
    """
    losses = -(targets * (logits / temperature).log_softmax(1)).sum(1)
    share = (mask / mask.sum(1, keepdim=True).clamp_min(1))[mask]
    return (losses * share).sum() * 2 / len(mask)


def crop_panels(batch: Batch, mask: Tensor | None = None, names: Sequence[str] = ()) -> list[list[Panel]]:
    """Return a row an image: its large crops, less what `mask` hides, and the small ones; `names` in that order."""
    large = batch["x"].transpose(0, 1).flatten(0, 1)
    shown = [*(large if mask is None else only(large, ~mask))]
    shown += [*batch["local"].transpose(0, 1).flatten(0, 1)] if "local" in batch else []
    hidden = [0] * len(large) if mask is None else mask.sum(1).tolist()
    count, panels = len(batch["x"]), []
    for place, image in enumerate(shown):
        words = [f"large {place // count + 1}" if place < len(large) else f"small {place // count - 1}"]
        words += [f"{hidden[place]} patches hidden"] if place < len(large) and hidden[place] else []
        words += [names[place]] if place < len(names) else []
        panels.append(Panel(image, ", ".join(words)))
    return [panels[row::count] for row in range(count)]


def patch_panels(batch: Batch, mask: Tensor, answers: tuple[Tensor, Tensor] | None = None) -> list[list[Panel]]:
    """Return `crop_panels`; with the `answers` (2B, N, K) of both it says for how many hidden patches they agree."""
    if answers is None:
        return crop_panels(batch, mask)
    mine, told = (cosines.argmax(2) for cosines in answers)
    return crop_panels(batch, mask, [f"{count} as the teacher" for count in ((mine == told) & mask).sum(1).tolist()])
