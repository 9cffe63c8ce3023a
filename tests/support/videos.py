"""Small videos, written by PyAV or in memory."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from selfsup.data.video.clips import clip_spec
from selfsup.spec import ClipSpec, Spec


def write_video(
    path: Path, frames: np.ndarray, times: Sequence[float] | None = None, codec: str = "libx264", rate: int = 10
) -> Path:
    """Write frames (T, H, W, 3) uint8, shown at `times` in seconds or `rate` a second."""
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.time_base = "yuv420p", Fraction(1, 1000)
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = round(1000 * (number / rate if times is None else times[number]))
            frame.time_base = Fraction(1, 1000)
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def greys(levels: Sequence[int], high: int = 32, wide: int = 48) -> np.ndarray:
    """Return one plain frame a level, (T, high, wide, 3)."""
    return np.tile(np.array(levels, np.uint8)[:, None, None, None], (1, high, wide, 3))


class Clips:
    """Videos in an array (N, T, H, W, 3) uint8, ten frames a second."""

    kind = "video"
    labels = None

    def __init__(self, x: np.ndarray, name: str = "clips") -> None:
        self.x, self.name = x, name

    def __len__(self) -> int:
        return len(self.x)

    def extent(self, index: int) -> int:
        return self.x.shape[1]

    def read(self, index: int, span: slice | None = None) -> np.ndarray:
        return self.x[index, span or slice(None)]

    def path(self, index: int) -> str:
        return str(index)

    def spec(self, size: int | None = None, frames: int | None = None, step: int | None = None) -> ClipSpec:
        return clip_spec(size, None, frames, step, 10.0)

    def conform(self, spec: Spec) -> Clips:
        return self

    def take(self, indices: np.ndarray) -> Clips:
        return Clips(self.x[indices], self.name)

    def fingerprint(self) -> str:
        return self.name
