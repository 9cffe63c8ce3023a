"""Views of images: read once, resample and change the colours of every view, straight into the batch."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from selfsup.base import buffers
from selfsup.data.image import Arrays
from selfsup.data.image.decode import to_channels
from selfsup.nn.constants import mean_std
from selfsup.source import Source
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Fetched
from selfsup.views.image import reference
from selfsup.views.image.crop import Crop
from selfsup.views.image.draw import PLAIN, Places, color_params, draws, noise, places, rotations
from selfsup.views.image.family import in_family
from selfsup.views.image.warp import Warps, resize, warp_views, warps
from selfsup.views.reading import of_samples, read_or_substitute

engine: Any = reference  # if numba is missing or cannot compile here: the same pixels, slower
with contextlib.suppress(ImportError):
    engine = importlib.import_module("selfsup.views.image.kernel")

_CHUNK, _CHUNK_BYTES = 16, 16 << 20  # images decoded before their views are made, with parameters drawn for all at once


def engine_name() -> str:
    """Return which engine makes the views here: `compiled` (numba) or `torch`."""
    return "torch" if engine is reference else "compiled"


class _Images(NamedTuple):
    pixels: NDArray[Any] | list[NDArray[Any]]  # (N, H, W, C) to pick from, or one array (H, W, C) an image
    picked: NDArray[np.int64]  # which of the pixels are the images (B,)
    indices: NDArray[np.int64]  # the samples that were read (B,)
    skipped: list[tuple[int, str]]


@dataclass(frozen=True)
class ImageViews:
    """Views of images: one batch key a group, (B, count, C, H, W), or (B, C, H, W) for a group of one.

    `groups` are kept as the family of the spec has them (`selfsup.views.image.family.in_family`); evaluation has a spec
    with natural views.

    Further keys: `index` (B,) int64, the sample's number; `y` (B,) int64 with `labels` (-1: none); with `noise` also
    `noise` (B,) int64, the key from which a task draws what it does to the sample (`selfsup.nn.noise`). All are
    functions of (seed, epoch, index) alone, whatever `output` is:

    - `uint8`: finished pixels, channels last in memory, normalized by `finish`: right for a GPU and for processes.
    - `float32`: normalized by `fetch` already, channels last in memory: right for training on a CPU.
    - `crops`: uint8 crops and `<key>.color` (B, count, 8) float32, the parameters of their colour operations, which
      `finish` computes in one batch on the device: right for a GPU whose CPU cannot keep up. Groups with noise have
      `<key>.std` (B, count) float32 and `<key>.noise` (B, count) int64 too.
    """

    spec: ImageSpec
    groups: Mapping[str, Crop] = field(default_factory=dict)
    labels: bool = False
    noise: bool = False
    output: Literal["uint8", "float32", "crops"] = "uint8"

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", in_family(self.spec.views, self.groups))

    def for_device(self, device: torch.device | str, appearance_on_device: bool = False) -> ImageViews:
        """Return the same with the output that suits a device: uint8 (or crops), for `cpu` and a range float32."""
        if torch.device(device).type == "cpu" or self.spec.range is not None:  # 8 bits may be too few of such values
            return replace(self, output="float32")
        return replace(self, output="crops" if appearance_on_device else "uint8")

    def fetch(self, source: Source, indices: NDArray[np.int64], seed: int, epoch: int) -> Fetched:
        """Return a batch of len(indices); a sample that cannot be read is replaced by another one."""
        count = len(indices)
        used = np.empty(count, dtype=np.int64)
        skipped: list[tuple[int, str]] = []
        outs = {key: self._empty(count, crop) for key, crop in self.groups.items()}
        kept = self._parameters(count)
        done, source = 0, source.conform(self.spec)
        for images in self._read(source, indices, seed, epoch):
            rows = slice(done, done + len(images.indices))
            used[rows] = images.indices
            skipped += images.skipped
            self._make(images, seed, epoch, rows, outs, kept)
            done = rows.stop
        batch = {"index": torch.from_numpy(used)}
        for key, crop in self.groups.items():
            views = torch.from_numpy(outs[key]).permute(0, 1, 4, 2, 3)
            batch[key] = views if crop.count > 1 else views[:, 0]
        if self.output == "crops":
            batch |= {key: torch.from_numpy(values) for key, values in kept.items()}
        batch |= of_samples(source, used, seed, epoch, self.labels, self.noise)
        return Fetched(batch, tuple(skipped))

    def finish(self, batch: Batch) -> Batch:
        """Return float32 images, normalized by the spec, channels last in memory. Floats stay as they are."""
        done = dict(batch)
        for key in self.groups:
            x = batch[key]
            if x.dtype != torch.uint8:
                continue
            mean, std = mean_std(self.spec, x)
            if f"{key}.color" in done:
                flat = x.reshape(-1, *x.shape[-3:]).float() / 255
                flat = reference.change_colors(flat, done.pop(f"{key}.color").flatten(0, 1))
                if f"{key}.std" in done:
                    flat = reference.noisy(flat, done.pop(f"{key}.noise").flatten(), done.pop(f"{key}.std").flatten())
                flat = (flat - mean).div_(std).contiguous(memory_format=torch.channels_last)
                done[key] = flat.permute(0, 2, 3, 1).view(*x.shape[:-3], *x.shape[-2:], -1).movedim(-1, -3)
            else:
                done[key] = (x.float() - 255 * mean).mul_(1 / (255 * std))
        return done

    def _empty(self, count: int, crop: Crop) -> NDArray[Any]:
        dtype = np.float32 if self.output == "float32" else np.uint8
        shape = count, crop.count, crop.size, crop.size, self.spec.channels
        return buffers.empty(shape, dtype)

    def _parameters(self, count: int) -> dict[str, NDArray[Any]]:
        """Return room for what `finish` needs to change crops."""
        kept: dict[str, NDArray[Any]] = {}
        for key, crop in self.groups.items():
            kept[f"{key}.color"] = np.empty((count, crop.count, 8), np.float32)
            if crop.noise:
                kept[f"{key}.std"] = np.empty((count, crop.count), np.float32)
                kept[f"{key}.noise"] = np.empty((count, crop.count), np.int64)
        return kept

    def _read(self, source: Source, indices: NDArray[np.int64], seed: int, epoch: int) -> Iterator[_Images]:
        if isinstance(source, Arrays):
            pixels, picked = source.several(indices)
            if pixels.shape[-1] == self.spec.channels:
                yield _Images(pixels, picked, indices, [])
            else:
                yield _Images(to_channels(pixels[picked], self.spec.channels), np.arange(len(indices)), indices, [])
            return
        if (prefetch := getattr(source, "prefetch", None)) is not None:
            prefetch(indices)  # all at once, where they are far away
        images: list[NDArray[Any]] = []
        used: list[int] = []
        skipped: list[tuple[int, str]] = []
        for place, wanted in enumerate(indices.tolist()):
            image: NDArray[Any]
            image, index, broken = read_or_substitute(source, wanted, seed, epoch)
            images.append(to_channels(image, self.spec.channels))
            used.append(index)
            skipped += broken
            full = len(images) == _CHUNK or sum(p.nbytes for p in images) > _CHUNK_BYTES
            if full or place == len(indices) - 1:
                yield _Images(images, np.arange(len(images)), np.array(used, dtype=np.int64), skipped)
                images, used, skipped = [], [], []

    def _make(
        self,
        images: _Images,
        seed: int,
        epoch: int,
        rows: slice,
        outs: Mapping[str, NDArray[Any]],
        kept: Mapping[str, NDArray[Any]],
    ) -> None:
        pixels, picked, indices, _ = images
        if isinstance(pixels, np.ndarray):
            shapes = np.tile(np.array(pixels.shape[1:3]), (len(picked), 1))
        else:
            shapes = np.array([image.shape[:2] for image in pixels])
        u = draws(seed, epoch, indices, sum(crop.count for crop in self.groups.values()))
        first = 0
        for key, crop in self.groups.items():
            mine, rest = u[:, first : first + crop.count], (seed, epoch, indices, first)
            where = places(crop, shapes, mine, *rest)
            color = kept[f"{key}.color"][rows] = color_params(crop, mine)
            if self.output == "crops":
                color = np.broadcast_to(PLAIN, color.shape).copy()
            out = outs[key][rows]
            if crop.warped:
                self._warp(images, crop, where, warps(crop, where, shapes, *rest), color, out)
            else:
                self._crop(images, crop, where, color, out)
            if crop.rotated:
                engine.rotate(out, rotations(crop, *rest))
            if crop.noise:
                drawn = noise(crop, *rest)
                kept[f"{key}.std"][rows], kept[f"{key}.noise"][rows] = drawn
                if self.output != "crops":
                    engine.add_noise(out, drawn, *scaling(self.spec, self.output))
            first += crop.count

    def _crop(self, images: _Images, crop: Crop, where: Places, color: NDArray[np.float32], out: NDArray[Any]) -> None:
        pixels, picked, _, _ = images
        factor, offset = scaling(self.spec, self.output)
        if isinstance(pixels, np.ndarray):
            engine.render(pixels, picked, where, crop.bicubic, color, factor, offset, out)
            return
        for place, image in enumerate(pixels):
            one = slice(place, place + 1)
            if crop.scale is None or crop.grid > 1 or image.dtype != np.uint8:
                there = Places(where.box[one], where.bounds[one], where.flip[one], where.black)
                engine.render(
                    image[None], np.zeros(1, np.int64), there, crop.bicubic, color[one], factor, offset, out[one]
                )
            else:
                flips, direct = where.flip[place], out.dtype == np.uint8 and bool((color[place] == PLAIN).all())
                crops = (
                    out[place]
                    if direct
                    else buffers.scratch("crops", out[place].size, np.uint8).reshape(out[place].shape)
                )
                _resize(image, where.box[place], crop, crops)
                if not direct or flips.any():
                    engine.paint(crops, flips, color[place], factor, offset, out[place])

    def _warp(
        self,
        images: _Images,
        crop: Crop,
        where: Places,
        warped: Warps,
        color: NDArray[np.float32],
        out: NDArray[Any],
    ) -> None:
        pixels, picked, _, _ = images
        views, scale = np.arange(crop.count), scaling(self.spec, self.output)
        whole = np.tile([0.0, 0, crop.size, crop.size], (crop.count, 1, 1))
        bounds = np.tile([0, crop.size, 0, crop.size], (crop.count, 1, 1))
        for place, image in enumerate(picked.tolist()):
            made = warp_views(engine, pixels[image], warped, place, crop, where.black)
            there = Places(whole, bounds, where.flip[place][:, None], False)
            engine.render(made, views, there, False, color[place][:, None], *scale, out[place][:, None])


def scaling(spec: ImageSpec, output: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the factor (C,) and offset (C,) that turn 0..1 into an output: normalized float32, or uint8."""
    if output == "float32":
        std = np.array(spec.std, dtype=np.float32)
        return (1 / std).astype(np.float32), (-np.array(spec.mean) / std).astype(np.float32)
    return np.full(spec.channels, 255, np.float32), np.full(spec.channels, 0.5, np.float32)


def _resize(image: NDArray[np.uint8], boxes: NDArray[np.float64], crop: Crop, out: NDArray[np.uint8]) -> None:
    """Cut boxes (V, 4) of whole pixels out of an image and resize each, antialiased, into out (V, S, S, C)."""
    for view, (top, left, high, wide) in enumerate(boxes.astype(np.int64).tolist()):
        cut = buffers.scratch("cut", high * wide * image.shape[2], np.uint8).reshape(high, wide, -1)
        cut[:] = image[top : top + high, left : left + wide]
        resize(cut, out[view], crop.bicubic)
