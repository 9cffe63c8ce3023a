"""Images as an encoder takes them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor

from selfsup.errors import unknown

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
MAX_SIZE, MAX_CHANNELS = 4096, 64
NATURAL, OVERHEAD, DOCUMENT = FAMILIES = ("natural", "overhead", "document")


def is_scale(mean: Sequence[float], std: Sequence[float], channels: int) -> bool:
    """Return whether there are a finite mean and a positive, finite std for each of the channels."""
    return (
        len(mean) == len(std) == channels
        and all(math.isfinite(value) for value in mean)
        and all(0 < value < math.inf for value in std)
    )


@dataclass(frozen=True)
class ImageSpec:
    """Square images of `size` pixels, (B, C, H, W) float32: (x - mean) / std, one mean and std a channel.

    x is from 0 to 1: values from `range` low to high of the data, or without one the pixels of 8-bit images / 255.
    `views`: natural, overhead or document, the family of the random views of a task (`selfsup.views.image.family`).
    """

    kind: ClassVar[str] = "image"
    samples: ClassVar[str] = "images"
    axes: ClassVar[str] = "BCHW"
    of_training: ClassVar[tuple[str, ...]] = ("views",)

    size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    range: tuple[float, float] | None = None
    views: str = NATURAL

    def __post_init__(self) -> None:
        if self.views not in FAMILIES:
            raise unknown("family of views", self.views, FAMILIES)

    @classmethod
    def of(cls, size: int, channels: int) -> ImageSpec:
        """Return a spec with the usual normalization: ImageNet's for colour, 0.5 and 0.5 for anything else."""
        mean, std = IMAGENET if channels == 3 else ((0.5,) * channels, (0.5,) * channels)
        return cls(size, channels, mean, std)

    def example(self, n: int) -> Tensor:
        """Return zeros (n, C, H, W)."""
        return torch.zeros(n, self.channels, self.size, self.size)

    def describe(self) -> str:
        """Return the size and the channels, and the range and the views where they are not the usual ones."""
        values = "" if self.range is None else f", values from {self.range[0]:g} to {self.range[1]:g}"
        views = "" if self.views == NATURAL else f", {self.views} views"
        return f"{self.size} × {self.size} pixels, {self.channels} channel{'s' * (self.channels != 1)}{values}{views}"

    def draw(self, x: Tensor) -> Image.Image:
        """Undo the normalization of (C, H, W); of more than three channels the first three are shown."""
        x = x.detach().cpu().float()
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        pixels = ((x * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
        colours = pixels[:3] if len(pixels) >= 3 else pixels[:1].expand(3, -1, -1)
        return Image.fromarray(colours.permute(1, 2, 0).contiguous().numpy())

    def to_json(self) -> dict[str, Any]:
        """Return all fields, `views` only where they are not natural."""
        values = {"kind": self.kind, **asdict(self)}
        return values if self.views != NATURAL else {key: value for key, value in values.items() if key != "views"}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], folder: Path) -> ImageSpec:
        """Return the spec; ValueError for impossible sizes, channels, means or standard deviations."""
        size, channels, mean, std = (values[key] for key in ("size", "channels", "mean", "std"))
        low, high = values.get("range") or (0.0, 1.0)
        if not (type(size) is int and type(channels) is int):
            raise ValueError("the size or the channels are not whole numbers")
        sound = (
            0 < size <= MAX_SIZE
            and 0 < channels <= MAX_CHANNELS
            and is_scale(mean, std, channels)
            and -math.inf < low < high < math.inf
            and values.get("views", NATURAL) in FAMILIES
        )
        if not sound:
            raise ValueError("it has an impossible spec")
        bounds = (float(low), float(high)) if values.get("range") else None
        return cls(size, channels, tuple(mean), tuple(std), bounds, values.get("views", NATURAL))

    def save(self, folder: Path) -> None:
        """Write nothing: the recipe contains everything."""
