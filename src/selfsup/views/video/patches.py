"""Views of what is tracked: patches of the same thing in two frames of a video, and of other things beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from selfsup.base import buffers
from selfsup.data.image.decode import to_channels
from selfsup.errors import UserError
from selfsup.source import Broken, Source
from selfsup.spec import ClipSpec
from selfsup.task import Batch, Fetched
from selfsup.views.image.crop import Crop
from selfsup.views.image.draw import Places, color_params, draws
from selfsup.views.image.views import engine, scaling
from selfsup.views.random import uniform
from selfsup.views.reading import normalized, read_or_substitute
from selfsup.views.video.views import frames_of

_TRACKS = 6 << 24  # first column of the draws of windows and tracks, behind those of clips
SHIFT = 0.1  # a patch is moved by up to this fraction of its side


@dataclass(frozen=True)
class PatchViews:
    """`x` (B, K, 2, C, S, S): patches of K tracks of one window of each video, in its first and its last frame.

    All K are of the same time of the same video, so that what tells them apart is not the video. Each patch has a
    shift, a flip and colours of its own; of `crop` the size, the flip and what changes colours are used. Also `index`
    (B,) int64. A video without such a window is replaced by another one, and counted. `output` as in `ImageViews`.
    """

    spec: ClipSpec
    crop: Crop
    gap: int
    tracks: int = 2
    output: Literal["uint8", "float32"] = "uint8"

    def for_device(self, device: torch.device | str) -> PatchViews:
        """Return the same with the output that suits a device."""
        return replace(self, output="float32" if torch.device(device).type == "cpu" else "uint8")

    def fetch(self, source: Source, indices: NDArray[np.int64], seed: int, epoch: int) -> Fetched:
        """Return a batch of len(indices). Raises `UserError` for a source that cannot tell what moves."""
        source, size, many = source.conform(self.spec), self.crop.size, 2 * self.tracks
        find: Any = getattr(source, "tracks", None)
        if find is None:
            raise UserError(f"{source.name} has no tracks: this task learns from videos")
        dtype = np.float32 if self.output == "float32" else np.uint8
        out = buffers.empty((len(indices), many, size, size, self.spec.channels), dtype)
        used, skipped = np.empty(len(indices), np.int64), []

        def read(index: int) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
            found, u = find(index, self.gap), uniform(seed, epoch, np.array([index]), 2, _TRACKS)[0]
            there = found.there()
            windows = np.flatnonzero(there.sum(1) >= self.tracks)
            if not len(windows):
                raise Broken(f"fewer than {self.tracks} things that move through {self.gap} frames")
            window = windows[int(u[0] * len(windows))]
            tracks = np.flatnonzero(there[window])
            order = np.roll(tracks, int(u[1] * len(tracks)))[: self.tracks]
            return frames_of(source, index, found.frames[window]), found.boxes[window, order].astype(np.float64)

        for row, wanted in enumerate(indices.tolist()):
            (frames, boxes), used[row], broken = read_or_substitute(source, wanted, seed, epoch, read)
            skipped += broken
            u = draws(seed, epoch, used[row : row + 1], many)  # (1, K · 2, 17)
            self._cut(to_channels(frames, self.spec.channels), boxes.reshape(many, 3), u, out[row])
        made = torch.from_numpy(out).permute(0, 1, 4, 2, 3).unflatten(1, (self.tracks, 2))
        return Fetched({"index": torch.from_numpy(used), "x": made}, tuple(skipped))

    def finish(self, batch: Batch) -> Batch:
        """Return float32 patches, normalized by the spec. Floats stay as they are."""
        return dict(batch) | {"x": normalized(batch["x"], self.spec.image)}

    def _cut(
        self, frames: NDArray[np.uint8], boxes: NDArray[np.float64], u: NDArray[np.float64], out: NDArray[Any]
    ) -> None:
        high, wide = frames.shape[1:3]
        side = np.minimum(boxes[:, 2], min(high, wide))
        corner = boxes[:, :2] + SHIFT * side[:, None] * (2 * u[0, :, 2:4] - 1)
        corner = corner.clip(0, np.array([high, wide]) - side[:, None])
        box = np.concatenate([corner, side[:, None], side[:, None]], 1)[:, None]  # (K · 2, 1, 4)
        bounds = np.tile(np.array([0, high, 0, wide]), (len(box), 1, 1))
        flip = u[0, :, 4:5] < self.crop.flip
        where = Places(box, bounds, flip, False)
        color = color_params(self.crop, u).reshape(len(box), 1, -1)
        picked = np.tile(np.arange(2), self.tracks)
        room = out[:, None]
        engine.render(frames, picked, where, self.crop.bicubic, color, *scaling(self.spec.image, self.output), room)
