"""Frames of video files, on an even grid of time, decoded one after another."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, ImageSequence

from selfsup.data.image.decode import SUFFIXES as IMAGE_SUFFIXES
from selfsup.data.image.decode import read_image, to_channels
from selfsup.errors import need
from selfsup.source import Broken, natural_order

SUFFIXES = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".wmv", ".ogv", ".flv")
ANIMATED = (".gif", ".webp", ".png", ".apng")  # videos where they are asked for with video:
STILLS = 10.0  # frames a second of a folder of images, and of an animation that does not say it
CLOSE = 1e-4  # seconds that do not matter
MOST = 1_000_000  # frames of a video: beyond that it is taken for endless


class About(NamedTuple):
    """What the header of a video says: frames a second, and how many there are (0: it does not say)."""

    fps: float
    frames: int


def about(path: bytes) -> About:
    """Return what the header of a video file, or of a folder of images, says; raise `Broken` for no video."""
    if os.path.isdir(path):
        return About(STILLS, len(_stills(path)))
    if _animated(path):
        try:
            with Image.open(os.fsdecode(path)) as image:
                told = float(np.mean([_milliseconds(frame) for frame in islice(ImageSequence.Iterator(image), 16)]))
                return About(1000 / told if told >= 1 else STILLS, getattr(image, "n_frames", 1))
        except Exception as error:  # Pillow raises anything for damaged files
            raise _reason(error) from None
    with _opened(path) as container:
        stream = container.streams.video[0]
        rate = stream.average_rate or stream.guessed_rate or STILLS
        frames = stream.frames or int(float(container.duration or 0) / 1e6 * float(rate))
        return About(float(rate), frames)


def decode(path: bytes, fps: float, side: int, start: float = 0.0) -> Iterator[NDArray[np.uint8]]:
    """Yield frames (H, W, 3), `fps` a second, upright, the shorter side reduced to `side` where it is longer.

    Frame k is the one that is shown at `start` + k / fps, so that a variable frame rate is made even: frames are
    repeated or left out. Of a video with a codec, nothing before the last key frame before `start` is decoded. All
    frames have the size of the first. What a truncated file still has is read; frames whose time runs backwards, or is
    far beyond what the header says, are left out.

    Raises `Broken` for a file that has no frame.
    """
    if os.path.isdir(path):
        timed: Iterator[tuple[float, NDArray[np.uint8]]] = _of_folder(path, side)
    elif _animated(path):
        timed = _of_animation(path, side)
    else:
        timed = _of_container(path, side, start)
    if start:
        timed = ((max(0.0, time - start), frame) for time, frame in timed if time >= start - CLOSE)
    header = about(path)
    last = 60 + 2 * header.frames / header.fps if header.frames else MOST / fps  # a later time is damage
    place, before, shape, time = 0, None, None, 0.0
    for now, frame in timed:
        if not time <= now <= last:
            continue
        time = now
        if shape is None:
            shape = frame.shape
        elif frame.shape != shape:
            frame = np.asarray(Image.fromarray(frame).resize((shape[1], shape[0]), Image.Resampling.BOX))
        while before is not None and (place + 0.5) / fps <= time and place < MOST:
            yield before
            place += 1
        if place >= MOST:
            return
        before = frame
    if before is None:
        raise Broken("no frame can be decoded")
    if place == 0 or (place - 0.4) / fps < time:
        yield before


def _opened(path: bytes) -> Any:
    av = need("av", "video")
    av.logging.restore_default_callback()  # its own needs the interpreter's lock in threads that have no right to it
    av.logging.set_libav_level(av.logging.PANIC)  # the libraries write about every damaged packet
    if not os.path.isfile(path):
        raise Broken("not a file")
    try:
        container = av.open(os.fsdecode(path), "r", metadata_errors="replace")
    except Exception as error:
        raise _reason(error) from None
    if not container.streams.video:
        container.close()
        raise Broken("no video stream")
    return container


def _reason(error: Exception) -> Broken:
    return Broken(re.sub(r"[0-9]{3,}|'.*'", "…", f"not a video: {getattr(error, 'strerror', None) or error}")[:100])


def _of_container(path: bytes, side: int, start: float) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    with _opened(path) as container:
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise Broken("its codec is unknown here")
        stream.codec_context.thread_count = 1  # several wait for each other for ever on some damaged files
        first, count = None, 0
        rate = float(stream.average_rate or stream.guessed_rate or STILLS)
        if start:
            first = float((stream.start_time or 0) * stream.time_base)
            with contextlib.suppress(Exception):  # some formats cannot: then all is decoded
                container.seek(int(1e6 * (first + start)))
        try:
            for frame in container.decode(stream):
                now = float(frame.time) if frame.time is not None else count / rate
                first = now if first is None else first
                if now - first >= start - CLOSE:
                    yield now - first, _pixels(frame, side)
                count += 1
        except Exception as error:
            if not count:
                raise _reason(error) from None


def _pixels(frame: Any, side: int) -> NDArray[np.uint8]:
    """Return a frame as RGB, reduced in the decoder's own colours, and upright."""
    wide, high = _reduced(frame.width, frame.height, side)
    pixels: NDArray[np.uint8] = frame.to_ndarray(width=wide, height=high, format="rgb24", interpolation="AREA")
    quarters = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, quarters)) if quarters else pixels


def _reduced(wide: int, high: int, side: int) -> tuple[int, int]:
    ratio = min(1.0, side / min(wide, high))
    return max(1, round(wide * ratio)), max(1, round(high * ratio))


def _animated(path: bytes) -> bool:
    return os.path.splitext(os.fsdecode(path))[1].lower() in ANIMATED


def _of_animation(path: bytes, side: int) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    time, count = 0.0, 0
    try:
        with Image.open(os.fsdecode(path)) as image:
            for frame in ImageSequence.Iterator(image):
                duration = _milliseconds(frame)
                rgba = ImageOps.exif_transpose(frame).convert("RGBA")
                flat = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
                yield time, np.asarray(flat.resize(_reduced(*flat.size, side), Image.Resampling.BOX))
                time += duration / 1000 if duration >= 1 else 1 / STILLS
                count += 1
    except Exception as error:
        if not count:
            raise _reason(error) from None


def _milliseconds(frame: Image.Image) -> float:
    """Return how long a frame of an animation is shown; 0 where the file does not say."""
    frame.load()  # before, WebP does not tell
    return float(frame.info.get("duration", 0))


def _stills(folder: bytes) -> list[bytes]:
    """Return the images in a folder, in natural order."""
    names = (name for name in os.listdir(folder) if os.path.splitext(os.fsdecode(name))[1].lower() in IMAGE_SUFFIXES)
    return sorted(names, key=lambda name: natural_order(os.fsdecode(name)))


def _of_folder(folder: bytes, side: int) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    count = 0
    for name in _stills(folder):
        try:
            image = Image.fromarray(to_channels(read_image(os.path.join(folder, name), 3), 3))
        except (Broken, TypeError):
            continue
        yield count / STILLS, np.asarray(image.resize(_reduced(*image.size, side), Image.Resampling.BOX))
        count += 1
