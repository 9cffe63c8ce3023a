"""Clips a second: from the frame store (uint8, JPEG), and decoded for every clip by PyAV and OpenCV.

    python benchmarks/video_clips.py                   # 40 generated videos of 300 frames, 320 × 240
    python benchmarks/video_clips.py --data videos/

All read the same clips, at the size of the store, on one thread, and hand over uint8 frames. The first pass of the
store decodes every video once; its time is told beside that of decoding every video once and keeping nothing.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from selfsup.base.quiet import quiet_libraries
from selfsup.data.open import open_data
from selfsup.data.video.decode import decode

CLIPS = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--size", type=int, default=112)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["SELFSUP_CACHE"] = scratch
        folder = args.data or write(Path(scratch) / "videos")
        videos = open_data(folder)
        began = time.process_time()
        for index in range(len(videos)):
            for _ in decode(videos.file(index), videos.spec().fps, round(8 / 7 * args.size)):
                pass
        once = time.process_time() - began
        stores = {}
        for kind in ("uint8", "jpeg"):
            source = open_data(folder)
            began = time.process_time()
            stores[kind] = source.conform(source.spec(size=args.size, store=kind))
            print(f"first pass, {kind}: {(time.process_time() - began) / once:.2f} × decoding once ({once:.1f} CPU-s)")
        some, shape = stores["uint8"], stores["uint8"].read(0, slice(0, 1)).shape[1:3]
        generator = np.random.default_rng(0)
        clips = []
        for _ in range(CLIPS):
            index = int(generator.integers(len(some)))
            first = int(generator.integers(some.extent(index) - 16))
            clips.append((index, first + 2 * np.arange(8)))
        ways: dict[str, Callable[[int, NDArray[np.int64]], NDArray[np.uint8]]] = {
            "store, uint8": stores["uint8"].frames,
            "store, JPEG": stores["jpeg"].frames,
            "PyAV": lambda index, numbers: by_pyav(videos.file(index), numbers, shape),
            "OpenCV": lambda index, numbers: by_opencv(videos.file(index), numbers, shape),
        }
        speeds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(3):  # interleaved rounds
            for name, read in ways.items():
                few = clips if name.startswith("store") else clips[:20]
                began = time.process_time()
                for index, numbers in few:
                    assert read(index, numbers).shape[0] == 8
                speeds[name].append(len(few) / (time.process_time() - began))
        base = float(np.median(speeds["PyAV"]))
        for name, found in speeds.items():
            print(f"{name:14} {np.median(found):10.1f} clips a CPU-second, {np.median(found) / base:8.1f} × PyAV")
        print(f"av {version('av')}, OpenCV {cv2.__version__}, numpy {np.__version__}, {platform.processor()}")


def write(folder: Path) -> Path:
    """Write videos of moving noise with photographs' statistics, as a camera's codec has them."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(40):
        canvas = cv2.resize(
            generator.integers(0, 256, (60, 80, 3), np.uint8), (640, 480), interpolation=cv2.INTER_CUBIC
        )
        with av.open(str(folder / f"{number}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=30)
            stream.height, stream.width, stream.pix_fmt = 240, 320, "yuv420p"
            for place in range(300):
                piece = np.ascontiguousarray(canvas[place % 200 : place % 200 + 240, place : place + 320])
                for packet in stream.encode(av.VideoFrame.from_ndarray(piece, format="rgb24")):
                    container.mux(packet)
            for packet in stream.encode():
                container.mux(packet)
    return folder


def by_pyav(path: bytes, numbers: NDArray[np.int64], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Seek to the key frame before the clip, and decode up to its end."""
    with quiet_libraries(), av.open(os.fsdecode(path)) as container:
        stream = container.streams.video[0]
        rate, base = stream.average_rate, stream.time_base
        container.seek(int(numbers[0] / rate / base), stream=stream, backward=True)
        wanted, found = set(numbers.tolist()), []
        for frame in container.decode(stream):
            number = round(frame.time * float(rate))
            if number in wanted:
                found.append(frame.to_ndarray(width=shape[1], height=shape[0], format="rgb24", interpolation="AREA"))
            if number >= numbers[-1]:
                break
    return np.stack(found)


def by_opencv(path: bytes, numbers: NDArray[np.int64], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Seek to the first frame, and decode up to the last."""
    video, found = cv2.VideoCapture(os.fsdecode(path)), []
    video.set(cv2.CAP_PROP_POS_FRAMES, int(numbers[0]))
    for number in range(int(numbers[0]), int(numbers[-1]) + 1):
        _, frame = video.read()
        if number in numbers:
            found.append(cv2.resize(frame[..., ::-1], shape[::-1], interpolation=cv2.INTER_AREA))
    return np.stack(found)


if __name__ == "__main__":
    main()
