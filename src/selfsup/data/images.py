"""One picture file -> uint8 pixels, whatever the file holds; what cannot be read is `Broken`, with a reason."""

from __future__ import annotations

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from selfsup.data import buffers

try:
    import simplejpeg
except ImportError:  # Pillow decodes to the same pixels, in about 1.5 times the time
    simplejpeg = None

SUFFIXES = frozenset([".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"])
MAX_PIXELS = 200_000_000  # refused from the header alone, before memory is taken

# EXIF orientation 1 to 8 -> swap the axes, then mirror left and right, then top and bottom
_TURNS = ((0, 0, 0), (0, 0, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 0), (1, 1, 0), (1, 1, 1), (1, 0, 1))


class Broken(Exception):
    """A sample that cannot be read; the message is the reason under which it is counted."""


def read_image(path: str | bytes, channels: int) -> NDArray[np.uint8]:
    """Return (H, W, channels) uint8, upright by its EXIF tag; the first frame of an animation.

    16-bit pictures keep their high byte, transparency is laid over white, palettes and CMYK become RGB.
    Raises `Broken` for anything that is no readable picture of at most `MAX_PIXELS` pixels.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        raise Broken("missing file") from None
    except PermissionError:
        raise Broken("no permission") from None
    except OSError as error:
        raise Broken(f"cannot be read: {error.strerror}") from None
    return decode_image(data, channels)


def decode_image(data: bytes, channels: int) -> NDArray[np.uint8]:
    """Return the pixels of a picture file's bytes, as `read_image` does."""
    if not data:
        raise Broken("empty file")
    if simplejpeg is not None and data[:2] == b"\xff\xd8" and channels in (1, 3):
        try:
            return _jpeg(data, channels)
        except ValueError:  # what the fast decoder doubts Pillow decides, so that both ways accept the same files
            pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Broken("too many pixels")
                return _pixels(ImageOps.exif_transpose(image), channels)
    except UnidentifiedImageError:
        raise Broken("not a picture") from None
    except Image.DecompressionBombError:
        raise Broken("too many pixels") from None
    except Exception as error:  # Pillow's readers raise whatever their parsing trips over
        raise _reason(error) from None


def _reason(error: Exception) -> Broken:
    if isinstance(error, Broken):
        return error
    if isinstance(error, MemoryError):
        return Broken("too large for the memory")
    return Broken("truncated" if "truncated" in str(error) else "damaged")


def _jpeg(data: bytes, channels: int) -> NDArray[np.uint8]:
    """Decode a JPEG of gray or YCbCr pixels; ValueError for what is left to Pillow."""
    high, wide, colours, _ = simplejpeg.decode_jpeg_header(data)
    if high * wide > MAX_PIXELS:
        raise Broken("too many pixels")
    if colours not in ("Gray", "YCbCr") or (colours != "Gray" and channels == 1):
        raise ValueError(colours)
    turned = _orientation(data)
    room = buffers.empty((high * wide * channels,), np.uint8)
    pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "GRAY" if channels == 1 else "RGB", buffer=room)
    swap, mirror, upend = _TURNS[turned]
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
                turned = exif.get(0x0112, 1)
            except Exception:  # a damaged tag turns nothing
                return 1
            return turned if turned in range(1, 9) else 1
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
        raise Broken(f"no way to read a picture file as {channels} channels")
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
