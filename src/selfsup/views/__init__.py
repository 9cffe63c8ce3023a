"""Views: from samples to a batch. Declarative, picklable, without weights or state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from selfsup.data.images import Broken, to_channels
from selfsup.data.sources import Arrays, ImageSpec, Source
from selfsup.task import Batch
from selfsup.views.random import uniform


class Fetched(NamedTuple):
    """A batch, and the samples that could not be read: their number and the reason."""

    batch: Batch
    skipped: tuple[tuple[int, str], ...] = ()


class Views(Protocol):
    """How samples become a batch: `fetch` in a worker on the CPU, then `finish` on the device."""

    def fetch(self, source: Source, indices: NDArray[np.int64], seed: int, epoch: int) -> Fetched:
        """Return the views of the samples, each drawn from (seed, epoch, index) alone."""

    def finish(self, batch: Batch) -> Batch:
        """Return the batch as the encoder gets it (pictures: float32, normalised, channels last in memory)."""


@dataclass(frozen=True)
class Crop:
    """One group of views. `scale` and `ratio` as in torchvision's RandomResizedCrop; `pad` pixels of zero padding
    with a random shift instead (RotNet); neither: the centre."""

    size: int
    count: int = 1
    scale: tuple[float, float] | None = None
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    pad: int = 0
    flip: float = 0.0


@dataclass(frozen=True)
class ImageViews:
    """Views of pictures: one batch key a group, (B, count, C, H, W), or (B, C, H, W) for a group of one.

    Further keys: `index` (B,) int64, the sample's number; `y` (B,) int64 with `labels` (-1: none).
    """

    spec: ImageSpec
    groups: Mapping[str, Crop] = field(default_factory=dict)
    labels: bool = False

    def fetch(self, source: Source, indices: NDArray[np.int64], seed: int, epoch: int) -> Fetched:
        """Return uint8 views in channels-last memory; a sample that cannot be read is replaced by another one."""
        pictures: NDArray[np.uint8] | list[NDArray[np.uint8]]
        if isinstance(source, Arrays):
            pictures, indices, skipped = self._read_arrays(source, indices, seed, epoch)
        else:
            pictures, indices, skipped = self._read_each(source, indices, seed, epoch)
        shapes = np.array([picture.shape[:2] for picture in pictures])
        batch: dict[str, Tensor] = {"index": torch.from_numpy(indices)}
        for number, (key, crop) in enumerate(self.groups.items()):
            views = []
            for view in range(crop.count):
                draws = uniform(seed, epoch * 1024 + number * 32 + view, indices, 5)
                boxes, flips = _boxes(crop, shapes, draws)
                views.append(_resample(pictures, boxes, flips, crop.size))
            batch[key] = torch.stack(views, 1) if crop.count > 1 else views[0]
        if self.labels:
            assert source.labels is not None
            batch["y"] = torch.from_numpy(source.labels.ids[indices])
        return Fetched(batch, skipped)

    def finish(self, batch: Batch) -> Batch:
        """Return float32 pictures, normalised by the spec, channels last in memory."""
        done = dict(batch)
        for key in self.groups:
            x = batch[key]
            mean = torch.tensor(self.spec.mean, device=x.device).mul_(255).view(-1, 1, 1)
            scale = torch.tensor(self.spec.std, device=x.device).mul_(255).reciprocal_().view(-1, 1, 1)
            done[key] = (x.float() - mean).mul_(scale)
        return done

    def _read_arrays(
        self, source: Arrays, indices: NDArray[np.int64], seed: int, epoch: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64], tuple[tuple[int, str], ...]]:
        return to_channels(source.x[indices], self.spec.channels), indices, ()

    def _read_each(
        self, source: Source, indices: NDArray[np.int64], seed: int, epoch: int
    ) -> tuple[list[NDArray[np.uint8]], NDArray[np.int64], tuple[tuple[int, str], ...]]:
        pictures, used, skipped = [], indices.copy(), []
        for place in range(len(indices)):
            picture, used[place], broken = read_or_substitute(source, int(indices[place]), seed, epoch)
            pictures.append(to_channels(picture, self.spec.channels))
            skipped += broken
        return pictures, used, tuple(skipped)


def plain_views(spec: ImageSpec) -> ImageViews:
    """Return the views that evaluation, embedding and export use: the key `x`, the centre of the picture, unchanged."""
    return ImageViews(spec, {"x": Crop(spec.size)})


def read_or_substitute(source: Source, index: int, seed: int, epoch: int) -> tuple[Any, int, list[tuple[int, str]]]:
    """Read a sample; for a broken one draw others from (seed, epoch, index), so that a batch keeps its size.

    Returns the sample, its number, and the broken ones with their reasons. Raises `Broken` after 64 broken samples.
    """
    broken: list[tuple[int, str]] = []
    others = (uniform(seed, epoch, np.array([~index]), 63)[0] * len(source)).astype(np.int64)
    for candidate in (index, *others.tolist()):
        try:
            return source.read(candidate), candidate, broken
        except Broken as error:
            broken.append((candidate, str(error)))
    raise Broken(f"64 samples in a row cannot be read, for example {source.path(index)!r}: {broken[0][1]}")


def _boxes(
    crop: Crop, shapes: NDArray[np.int64], draws: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return boxes (B, 4) top, left, height, width in pixels, and flips (B,)."""
    high, wide = shapes[:, 0].astype(float), shapes[:, 1].astype(float)
    side = np.minimum(high, wide)
    if crop.scale is None:
        h = w = side
        reach = crop.pad * side / crop.size
        step = side / crop.size
        top = (high - h) / 2 + (np.floor(draws[:, 2] * (2 * crop.pad + 1)) * step - reach)
        left = (wide - w) / 2 + (np.floor(draws[:, 3] * (2 * crop.pad + 1)) * step - reach)
    else:
        area = high * wide * (crop.scale[0] + draws[:, 0] * (crop.scale[1] - crop.scale[0]))
        low, up = np.log(crop.ratio)
        ratio = np.exp(low + draws[:, 1] * (up - low))
        w, h = np.minimum(np.sqrt(area * ratio), wide), np.minimum(np.sqrt(area / ratio), high)
        top, left = draws[:, 2] * (high - h), draws[:, 3] * (wide - w)
    return np.stack([top, left, h, w], 1), draws[:, 4] < crop.flip


def _resample(
    pictures: NDArray[np.uint8] | Iterable[NDArray[np.uint8]],
    boxes: NDArray[np.float64],
    flips: NDArray[np.bool_],
    size: int,
) -> Tensor:
    """Return (B, C, size, size) uint8, channels last in memory; outside of a picture is black."""
    if isinstance(pictures, np.ndarray):
        return _sample(torch.from_numpy(pictures), boxes, flips, size)
    done = [
        _sample_one(picture, box, bool(flip), size) for picture, box, flip in zip(pictures, boxes, flips, strict=True)
    ]
    return torch.cat(done).contiguous(memory_format=torch.channels_last)


def _sample(x: Tensor, boxes: NDArray[np.float64], flips: NDArray[np.bool_], size: int) -> Tensor:
    high, wide = x.shape[1:3]
    top, left, h, w = torch.from_numpy(boxes).float().unbind(1)
    theta = torch.zeros(len(x), 2, 3)
    theta[:, 0, 0] = w / wide * torch.from_numpy(1 - 2.0 * flips).float()
    theta[:, 1, 1] = h / high
    theta[:, 0, 2], theta[:, 1, 2] = (2 * left + w) / wide - 1, (2 * top + h) / high - 1
    grid = F.affine_grid(theta, [len(x), x.shape[3], size, size], align_corners=False)
    return F.grid_sample(x.permute(0, 3, 1, 2).float(), grid, align_corners=False).round_().to(torch.uint8)


def _sample_one(picture: NDArray[np.uint8], box: NDArray[np.float64], flip: bool, size: int) -> Tensor:
    top, left, h, w = (round(float(v)) for v in box)
    cut = picture[max(top, 0) : max(top + max(h, 1), 1), max(left, 0) : max(left + max(w, 1), 1)]
    x = torch.from_numpy(np.array(cut[:, ::-1] if flip else cut))[None].permute(0, 3, 1, 2)
    return F.interpolate(x, (size, size), mode="bilinear", antialias=True)
