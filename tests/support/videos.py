"""Small videos, written by PyAV."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest


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
