"""One image file -> uint8 pixels, whatever its format; a file that cannot be read is `Broken`, with a reason."""

from __future__ import annotations

import io
import os
import stat
import warnings
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from selfsup.base import buffers
from selfsup.base.watchdog import with_timeout
from selfsup.source import Broken

try:
    import simplejpeg
except ImportError:  # Pillow decodes to the same pixels, in about 1.5 times the time
    simplejpeg = None

SUFFIXES = frozenset([".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"])
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # which Pillow may try, whatever the suffix
MAX_PIXELS = 200_000_000  # more are refused by the header, before memory is allocated
MAX_BYTES = 1 << 30  # of a file
MAX_WORK = 20 * MAX_PIXELS  # pixels times scans of a JPEG: a few bytes of a scan can cost a pass over all pixels

T = TypeVar("T")

# EXIF orientation 1 to 8 -> swap the axes, then mirror left and right, then top and bottom
_ORIENTATIONS = ((0, 0, 0), (0, 0, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 0), (1, 1, 0), (1, 1, 1), (1, 0, 1))


def read_image(path: str | bytes, channels: int) -> NDArray[np.uint8]:
    """Return (H, W, channels) uint8, upright by its EXIF tag; the first frame of an animation.

    16-bit images keep their high byte, transparency is laid over white, palettes and CMYK become RGB.
    Raises `Broken` for anything but a readable image of at most `MAX_PIXELS` pixels.
    """
    return decode_image(read_bytes(path), channels)


def read_bytes(path: str | bytes) -> bytes:
    """Return the content of a regular file of at most `MAX_BYTES`; raise `Broken` for anything else."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise Broken("not a regular file")
            if about.st_size > MAX_BYTES:
                raise Broken("file too large")
            return file.read()
    except FileNotFoundError:
        raise Broken("missing file") from None
    except PermissionError:
        raise Broken("no permission") from None
    except OSError as error:
        raise Broken(f"cannot be read: {error.strerror}") from None
    except ValueError:
        raise Broken("no file can have this name") from None
    except MemoryError:
        raise Broken("too large for the memory") from None


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # or opening a pipe would wait for a writer


def image_size(path: str | bytes) -> tuple[int, int]:
    """Return the width and height in an image file's header, or raise `Broken`."""
    return _by_pillow(read_bytes(path), lambda image: image.size)


def decode_image(data: bytes, channels: int) -> NDArray[np.uint8]:
    """Return the pixels of an image file's bytes, as `read_image` does."""
    if not data:
        raise Broken("empty file")
    if simplejpeg is not None and data[:2] == b"\xff\xd8" and channels in (1, 3):
        try:
            return _jpeg(data, channels)
        except ValueError:  # Pillow decides what the fast decoder refuses, so that both ways accept the same files
            pass
    return _by_pillow(data, lambda image: _pixels(ImageOps.exif_transpose(image), channels))


def _by_pillow(data: bytes, use: Callable[[Image.Image], T]) -> T:
    """Return `use` of an image, or raise `Broken`, also for a decoder that does not terminate."""

    def work() -> T:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Broken("too many pixels")
                if image.format in ("JPEG", "MPO"):
                    _check_scans(data, image.width * image.height)
                return use(image)

    try:
        return with_timeout(work)
    except TimeoutError:
        raise Broken("takes too long to decode") from None
    except UnidentifiedImageError:
        raise Broken("not an image") from None
    except Image.DecompressionBombError:
        raise Broken("too many pixels") from None
    except Exception as error:  # Pillow's readers may raise anything on damaged files
        raise _reason(error) from None


def _check_scans(data: bytes, pixels: int) -> None:
    if pixels * data.count(b"\xff\xda") > MAX_WORK:
        raise Broken("too many scans")


def _reason(error: Exception) -> Broken:
    if isinstance(error, Broken):
        return error
    if isinstance(error, MemoryError):
        return Broken("too large for the memory")
    return Broken("truncated" if "truncated" in str(error) else "damaged")


def _jpeg(data: bytes, channels: int) -> NDArray[np.uint8]:
    """Decode a JPEG of gray or YCbCr pixels; ValueError for those that are left to Pillow."""
    high, wide, colours, _ = simplejpeg.decode_jpeg_header(data)
    if high * wide > MAX_PIXELS:
        raise Broken("too many pixels")
    _check_scans(data, high * wide)
    if colours not in ("Gray", "YCbCr") or (colours != "Gray" and channels == 1):
        raise ValueError(colours)
    orientation = _orientation(data)
    room = buffers.empty((high * wide * channels,), np.uint8)
    pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "GRAY" if channels == 1 else "RGB", buffer=room)
    swap, mirror, upend = _ORIENTATIONS[orientation]
    pixels = pixels.transpose(1, 0, 2) if swap else pixels
    pixels = pixels[:, ::-1] if mirror else pixels
    pixels = pixels[::-1] if upend else pixels
    return np.ascontiguousarray(pixels)


def _orientation(data: bytes) -> int:
    """Return the EXIF orientation, 1 to 8, of a JPEG; 1 where there is none."""
    place = 2
    while data[place : place + 1] == b"\xff" and data[place + 1 : place + 2] not in (b"\xda", b"\xd9", b""):
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        if data[place + 1] == 0xE1 and data[place + 4 : place + 10] == b"Exif\0\0":
            exif = Image.Exif()
            try:
                exif.load(data[place + 4 : place + 2 + length])
                orientation = exif.get(0x0112, 1)
            except Exception:  # a damaged tag is ignored
                return 1
            return orientation if orientation in range(1, 9) else 1
        place += 2 + max(length, 2)
    return 1


def _pixels(image: Image.Image, channels: int) -> NDArray[np.uint8]:
    if image.mode.startswith("I;16") or image.mode == "I":  # Pillow clips these to 255 instead of scaling them
        wide = np.asarray(image).astype(np.int64)
        image = Image.fromarray((wide >> 8 if wide.max() > 255 else wide).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    mode = {1: "L", 3: "RGB", 4: "RGBA"}.get(channels)
    if mode is None:
        raise Broken(f"an image file cannot be read as {channels} channels")
    pixels = np.asarray(image.convert(mode))
    return pixels.reshape(*pixels.shape[:2], channels)


def to_channels(pixels: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Return (..., H, W, C) with another number of channels: grey is repeated, colour is weighed (ITU-R 601)."""
    have = pixels.shape[-1]
    if have == channels:
        return pixels
    if have == 1:
        return np.repeat(pixels, channels, axis=-1)
    if channels == 1 and have >= 3:
        grey = pixels[..., :3].astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
        return grey.round().astype(pixels.dtype)[..., None]
    raise Broken(f"{have} channels cannot become {channels}")
