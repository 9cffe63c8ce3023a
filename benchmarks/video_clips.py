"""Clips a second: from the frame store (uint8, JPEG), and decoded for every clip by PyAV, OpenCV and decord.

    python benchmarks/video_clips.py                   # 10 generated videos of 300 frames, of 128 and of 240 lines
    python benchmarks/video_clips.py --data videos/

All read the same clips of 8 frames on one thread, and hand over uint8 frames of the size of the store, 128 lines.
Videos of 128 lines are stored as they are: nobody has to reduce them. The first pass of the store decodes every video
once; its time is told beside that of decoding every video once and keeping nothing. CPU seconds, medians of three
interleaved rounds; OpenCV and decord take part where they are installed.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from selfsup.base.quiet import quiet_libraries
from selfsup.commands.doctor import processor
from selfsup.data.open import open_data
from selfsup.data.video.decode import decode
from selfsup.views.image import Crop
from selfsup.views.video import ClipViews, Cut

CLIPS, ROUNDS, FRAMES, STEP = 200, 3, 8, 2
SPAN = (FRAMES - 1) * STEP + 1
Clip = tuple[int, NDArray[np.int64]]
Read = Callable[[int, NDArray[np.int64]], NDArray[np.uint8]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--videos", type=int, default=10, help="that are generated")
    parser.add_argument("--memory", type=int, default=10_000, help="clips over which memory is watched")
    args = parser.parse_args()
    side = round(8 / 7 * args.size)
    with tempfile.TemporaryDirectory() as scratch:
        folders = [args.data] if args.data else [
            write(Path(scratch) / f"{lines}", args.videos, lines) for lines in (side, 240)
        ]  # fmt: skip
        for place, folder in enumerate(folders):
            measure(folder, args, side, Path(scratch) / "cache", watched=not place)
    names = [name for name in ("av", "opencv-python-headless", "decord2", "simplejpeg", "numpy") if installed(name)]
    print(f"{', '.join(f'{name} {version(name)}' for name in names)}, {processor()}")


def measure(folder: Path, args: argparse.Namespace, side: int, cache: Path, watched: bool) -> None:
    videos: Any = open_data(str(folder))
    spec = videos.spec(size=args.size, frames=FRAMES, step=STEP)
    once, built, stores = list[float](), dict[str, list[float]](uint8=[], jpeg=[]), dict[str, Any]()
    for turn in range(ROUNDS):
        os.environ["SELFSUP_CACHE"] = str(cache / folder.name / str(turn))
        began = time.process_time()
        for index in range(len(videos)):
            for _ in decode(videos.file(index), spec.fps, side):
                pass
        once.append(time.process_time() - began)
        for kind, took in built.items():
            source: Any = open_data(str(folder))
            source.spec(size=args.size, store=kind)
            began = time.process_time()
            stores[kind] = source.conform(spec)
            took.append(time.process_time() - began)
    some = stores["uint8"]
    shape = some.read(0, slice(0, 1)).shape[1:3]
    print(f"{folder.name}: {len(some)} videos, {sum(some.extents):,} frames stored as {shape[1]} × {shape[0]}; "
          f"decoding all once {statistics.median(once):.1f} CPU-s")  # fmt: skip
    for kind, took in built.items():
        size = sum(file.stat().st_size for file in stores[kind].files) / 2**20
        ratio = statistics.median(a / b for a, b in zip(took, once, strict=True))
        print(f"building the store, {kind:5} {ratio:6.2f} × decoding once; {size:,.0f} MiB")
    generator, clips = np.random.default_rng(0), list[Clip]()
    for index in generator.integers(len(some), size=CLIPS).tolist():
        start = int(generator.integers(max(1, some.extent(index) - SPAN)))
        clips.append((index, start + STEP * np.arange(FRAMES)))
    ways: dict[str, Read] = {"store, uint8": some.frames, "store, jpeg": stores["jpeg"].frames, **peers(videos, shape)}
    speeds = rounds(ways, clips)
    wanted = np.stack([some.frames(*clip) for clip in clips[:10]]).astype(float)
    base = statistics.median(speeds["PyAV"])
    for name, found in speeds.items():
        speed, apart = statistics.median(found), np.abs(np.stack([ways[name](*clip) for clip in clips[:10]]) - wanted)
        print(f"{name:14} {speed:9.1f} clips a CPU-second ({min(found):.1f} to {max(found):.1f}), "
              f"{speed / base:7.1f} × PyAV; {apart.mean():.1f} grey levels from the store")  # fmt: skip
    for kind, took in built.items():
        whole = statistics.median(took) + len(some) / statistics.median(speeds[f"store, {kind}"])
        print(
            f"first pass, a clip of each video, {kind:5} {len(some) / whole:.2f} clips a CPU-second, building counted"
        )
    views = ClipViews(spec, {"x": (Crop(args.size, scale=(0.5, 1), flip=0.5), Cut(FRAMES, STEP, at="moving"))})
    for kind, stored in stores.items() if watched else ():
        watch(views.for_device("cpu"), stored, kind, args.memory)


def rounds(ways: dict[str, Read], clips: list[Clip]) -> dict[str, list[float]]:
    """Return clips a CPU-second of each way, one number a round."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, read in ways.items():
            few = clips if name.startswith("store") else clips[:20]
            began = time.process_time()
            for clip in few:
                read(*clip)
            found[name].append(len(few) / (time.process_time() - began))
    return found


def watch(views: ClipViews, source: Any, kind: str, count: int) -> None:
    """Print how fast the views read clips, and how much memory the process has gained from a tenth of them to all."""
    generator, memory, began = np.random.default_rng(0), list[float](), time.process_time()
    for done in range(0, count, 20):
        views.fetch(source, generator.integers(len(source), size=20), 0, done)
        if done + 20 in (count // 10, count):
            memory.append(anonymous())
    speed = count / (time.process_time() - began)
    print(f"views, {kind:5} {speed:9.1f} clips a CPU-second, cropped and normalized; memory after {count // 10:,} and "
          f"{count:,} clips: {' and '.join(f'{size:.0f} MiB' for size in memory)}")  # fmt: skip


def anonymous() -> float:
    """Return the memory of this process in MiB, without what it maps from files."""
    return int(re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024  # type: ignore[index]


def installed(name: str) -> bool:
    return find_spec({"opencv-python-headless": "cv2", "decord2": "decord"}.get(name, name)) is not None


def write(folder: Path, videos: int, lines: int) -> Path:
    """Write videos of a camera that moves over noise, 4:3, as a camera's codec has them."""
    folder.mkdir()
    generator, (high, wide) = np.random.default_rng(0), (lines, round(lines * 4 / 3 / 2) * 2)
    for number in range(videos):
        noise = Image.fromarray(generator.integers(0, 256, (60, 80, 3), np.uint8))
        canvas = np.asarray(noise.resize((2 * wide, 2 * high), Image.Resampling.BICUBIC))
        with av.open(str(folder / f"{number}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=30)
            stream.height, stream.width, stream.pix_fmt = high, wide, "yuv420p"
            for place in range(300):
                top, left = high * place // 300, wide * place // 300
                piece = np.ascontiguousarray(canvas[top : top + high, left : left + wide])
                for packet in stream.encode(av.VideoFrame.from_ndarray(piece, format="rgb24")):
                    container.mux(packet)
            for packet in stream.encode():
                container.mux(packet)
    return folder


def peers(videos: Any, shape: tuple[int, int]) -> dict[str, Read]:
    """Return how each library reads the frames of a clip, those that are installed."""
    found: dict[str, Read] = {"PyAV": lambda index, numbers: by_pyav(videos.file(index), numbers, shape)}
    if installed("opencv-python-headless"):
        found["OpenCV"] = lambda index, numbers: by_opencv(videos.file(index), numbers, shape)
    if installed("decord2"):
        found["decord"] = lambda index, numbers: by_decord(videos.file(index), numbers, shape)
    return found


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
    import cv2

    cv2.setNumThreads(1)
    video, found = cv2.VideoCapture(os.fsdecode(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1]), []
    video.set(cv2.CAP_PROP_POS_FRAMES, int(numbers[0]))
    for number in range(int(numbers[0]), int(numbers[-1]) + 1):
        _, frame = video.read()
        if number in numbers:
            found.append(cv2.resize(frame[..., ::-1], shape[::-1], interpolation=cv2.INTER_AREA))
    return np.stack(found)


def by_decord(path: bytes, numbers: NDArray[np.int64], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Let the library find, decode and reduce the frames."""
    import decord

    reader = decord.VideoReader(os.fsdecode(path), width=shape[1], height=shape[0], num_threads=1)
    frames: NDArray[np.uint8] = reader.get_batch(numbers.tolist()).asnumpy()
    return frames


if __name__ == "__main__":
    main()
