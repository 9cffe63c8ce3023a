"""One image file -> its pixels, whatever its format; a file that cannot be read is `Broken`, with a reason."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import stat
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError, features

from selfsup.base import buffers
from selfsup.base.watchdog import with_timeout
from selfsup.data.image import instruments
from selfsup.source import Broken

try:
    import simplejpeg
except ImportError:  # Pillow decodes to the same pixels, in about 1.5 times the time
    simplejpeg = None

for _plugin, _register in (("pillow_heif", "register_heif_opener"), ("pillow_jxl", "")):  # optional
    with contextlib.suppress(ImportError):
        _module = importlib.import_module(_plugin)
        getattr(_module, _register, lambda: None)()


def _is_readable(name: str) -> bool:
    Image.init()
    return name in Image.OPEN and (name != "AVIF" or bool(features.check("avif")))


ALWAYS = (
    ".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".npy",
)  # fmt: skip
OPTIONAL = {  # suffix -> the format of Pillow, and what has to be installed to read it
    ".avif": ("AVIF", "a Pillow with AVIF: pip install -U pillow"),
    ".heic": ("HEIF", "pip install pillow-heif"),
    ".heif": ("HEIF", "pip install pillow-heif"),
    ".jxl": ("JXL", "pip install pillow-jxl-plugin"),
}
_EXTRA = {suffix: name for suffix, (name, _) in OPTIONAL.items() if _is_readable(name)}
SUFFIXES = frozenset([*ALWAYS, *_EXTRA])
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", *sorted(set(_EXTRA.values())))  # whatever the suffix
MAX_PIXELS = 200_000_000  # more are refused by the header, before memory is allocated
MAX_BYTES = 1 << 30  # of a file
MAX_WORK = 20 * MAX_PIXELS  # pixels times scans of a JPEG: a few bytes of a scan can cost a pass over all pixels

T = TypeVar("T")


def read_image(path: str | bytes, channels: int | None = 3) -> NDArray[Any]:
    """Return (H, W, channels), upright by its EXIF tag; 8-bit images as uint8, others in their own type.

    Transparency is laid over white, or kept as the fourth of 4 channels; palettes and CMYK become RGB. Without
    `channels` images of more bands than colours have all of them, and any other image has 3.
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


class Header(NamedTuple):
    """What a file says of itself: `bands` as they are stored, `alpha` if the last one is transparency."""

    ordinary: bool  # 8 bits or fewer, grey or colour
    bands: int
    alpha: bool
    pages: int
    narrowed: bool = False  # has more than 8 bits, of which the upper 8 are read


def read_header(data: bytes) -> Header:
    """Return what the bytes of an image file say of it, without decoding more than they must; or raise `Broken`."""
    if data[:2] == b"\xff\xd8":
        return Header(True, 3, False, 1)
    if instruments.is_npy(data):
        pixels = _guarded(lambda: instruments.read_npy(data))
        return Header(pixels.dtype in (np.uint8, np.bool_) and pixels.shape[2] in (1, 3), pixels.shape[2], False, 1)

    def look(image: Image.Image) -> Header | None:
        if _for_tifffile(image):
            return None
        wide = image.mode in ("I", "F") or image.mode.startswith("I;") or instruments.is_wide(data)
        alpha = image.mode in ("RGBA", "LA", "PA") or ("transparency" in image.info and not wide)
        if instruments.is_wide(data):
            alpha = instruments.has_alpha(data)
        grey = image.mode in ("1", "L", "LA") or image.mode[0] in "IF"
        pages = getattr(image, "n_frames", 1)
        return Header(not wide, (1 if grey else 3) + alpha, alpha, pages, instruments.is_narrowed(data))

    try:
        if found := _by_pillow(data, look):
            return found
    except Broken:
        if not data.startswith(instruments.TIFF):
            raise
    return _guarded(lambda: Header(False, *instruments.tiff_header(data)))


def read_mask(path: str | bytes) -> NDArray[Any]:
    """Return the numbers of classes (H, W) in an image of labels: places of its palette, or grey values, as stored.

    Raises `Broken` for colours, for JPEG, which changes them, and for anything but a readable image.
    """
    data = read_bytes(path)
    npy = instruments.is_npy(data)
    found = _guarded(lambda: instruments.read_npy(data)) if npy else _by_pillow(data, _as_stored)
    found = found.reshape(*found.shape[:2], -1)
    if found.shape[2] in (2, 4) and (found[..., -1] == np.iinfo(np.uint8).max).all():  # grey with an opaque channel
        found = found[..., :-1]
    if (found != found[..., :1]).any() or found.dtype.kind not in "bui":
        raise Broken("colours or fractions, no numbers of classes: save grey values or a palette")
    return found[..., 0]


def _as_stored(image: Image.Image) -> NDArray[Any]:
    if image.format == "JPEG":
        raise Broken("a JPEG, which changes the numbers of classes: save PNG")
    return np.asarray(ImageOps.exif_transpose(image))


def image_size(data: bytes) -> tuple[int, int]:
    """Return the width and height of an image file's bytes, by its header where that tells them, or raise `Broken`."""
    if not instruments.is_npy(data):
        try:
            return _by_pillow(data, lambda image: image.size)
        except Broken:
            if not data.startswith(instruments.TIFF):
                raise
    high, wide = decode_image(data, None).shape[:2]
    return wide, high


def decode_image(data: bytes, channels: int | None = 3, page: int = 0) -> NDArray[Any]:
    """Return the pixels of an image file's bytes, as `read_image` does."""
    if not data:
        raise Broken("empty file")
    if simplejpeg is not None and data[:2] == b"\xff\xd8" and channels in (1, 3, None):
        try:
            return _jpeg(data, channels or 3)
        except ValueError:  # Pillow decides what the fast decoder refuses, so that both ways accept the same files
            pass
    if instruments.is_npy(data):
        return _as_wanted(_guarded(lambda: instruments.read_npy(data)), channels)
    if instruments.is_wide(data):
        orientation = _by_pillow(data, lambda image: int(image.getexif().get(0x0112, 1)))
        pixels = instruments.oriented(_guarded(lambda: instruments.read_wide(data)), orientation)
        return _as_wanted(pixels, channels, instruments.has_alpha(data))
    if data.startswith(instruments.TIFF):
        return _tiff(data, channels, page)
    return _by_pillow(data, lambda image: from_pillow(_frame(image, page), channels))


def _tiff(data: bytes, channels: int | None, page: int) -> NDArray[Any]:
    """Decode a TIFF by Pillow where it is 8-bit grey or colour, by tifffile where it is anything else."""

    def work(image: Image.Image) -> NDArray[Any] | None:
        frame = image if page == 0 else _seek(image, page)
        return None if _for_tifffile(frame) else from_pillow(ImageOps.exif_transpose(frame), channels)

    first: Broken | None = None
    try:
        pixels = _by_pillow(data, work)
        if pixels is not None:
            return pixels
    except Broken as error:
        first = error
    try:
        pixels, alpha = _guarded(lambda: instruments.read_tiff(data, page))
    except Broken as error:
        if first is not None:
            raise (error if "imagecodecs" in str(error) else first) from None
        if "imagecodecs" not in str(error):
            raise
        # of what tifffile cannot decompress alone, Pillow reads grey of 16 bits and floats in full
        whole = _by_pillow(data, lambda image: _in_full(_frame(image, page)))
        if whole is None:
            raise error from None
        pixels, alpha = whole, False
    return _as_wanted(pixels, channels, alpha)


def _in_full(image: Image.Image) -> NDArray[Any] | None:
    return np.asarray(image)[..., None] if image.mode in ("I", "F") or image.mode.startswith("I;16") else None


def _for_tifffile(image: Image.Image) -> bool:
    """Return whether a TIFF that Pillow opened has more than it would show: more bits, more bands or other types."""
    tags: Any = getattr(image, "tag_v2", None)
    if image.format != "TIFF" or tags is None:
        return False
    bits = tags.get(258, (1,))
    bands = int(tags.get(277, 1))
    extra = tags.get(338, ())
    extra = extra if isinstance(extra, tuple) else (extra,)
    colours = bands - len(extra)
    unknown = bool(extra) and not (len(extra) == 1 and extra[0] in instruments.ALPHA)
    surplus = not extra and bands not in (1, 3, 4)
    return (
        max(bits) > 8
        or image.mode in ("I", "F")
        or unknown
        or surplus
        or (bands == 4 and not extra and image.mode in ("RGBX", "RGB"))
        or colours > 4
        or 42113 in tags
    )


def _frame(image: Image.Image, page: int) -> Image.Image:
    return ImageOps.exif_transpose(image if page == 0 else _seek(image, page))


def _seek(image: Image.Image, page: int) -> Image.Image:
    try:
        image.seek(page)
    except EOFError:
        raise Broken(f"has no page {page + 1}") from None
    return image


def _as_wanted(pixels: NDArray[Any], channels: int | None, alpha: bool = False) -> NDArray[Any]:
    """Return (H, W, C) with the channels that are wanted, in the same type."""
    if alpha and channels != 4:
        most = float(np.iinfo(pixels.dtype).max)
        cover = pixels[..., -1:].astype(np.float64) / most
        pixels = (pixels[..., :-1] * cover + most * (1 - cover)).round().astype(pixels.dtype)
    if channels is None:
        return to_channels(pixels, 3) if pixels.shape[2] == 1 else pixels
    if alpha and pixels.shape[2] == 2:  # grey and transparency
        pixels = pixels[..., [0, 0, 0, 1]]
    return to_channels(pixels, channels)


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

    return _guarded(work)


def _guarded(work: Callable[[], T]) -> T:
    """Return work(), or raise `Broken` for whatever a decoder raises, and for one that does not terminate."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return with_timeout(work)
    except TimeoutError:
        raise Broken("takes too long to decode") from None
    except UnidentifiedImageError:
        raise Broken("not an image") from None
    except Image.DecompressionBombError:
        raise Broken("too many pixels") from None
    except Exception as error:  # readers may raise anything on damaged files
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
    return instruments.oriented(pixels, orientation)


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


def colours_of(image: Image.Image) -> NDArray[Any]:
    """Return (H, W, C) of an image of Pillow, as of its file; grey has one channel. Raises `Broken` as `read_image`."""
    return _guarded(lambda: from_pillow(ImageOps.exif_transpose(image), 1 if image.mode in ("1", "L") else None))


def from_pillow(image: Image.Image, channels: int | None) -> NDArray[Any]:
    """Return (H, W, channels) of an image of Pillow, as `read_image` does, but not oriented."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):  # Pillow clips these to 255
        pixels = np.asarray(image)[..., None]
        if image.mode == "I" and image.format in ("PNG", "PPM", None) and 0 <= pixels.min() <= pixels.max() < 1 << 16:
            pixels = pixels.astype(np.uint16)
        return _as_wanted(np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("=")), channels)
    channels = channels or 3
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        if channels != 4:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    mode = {1: "L", 3: "RGB", 4: "RGBA"}.get(channels)
    if mode is None:
        raise Broken(f"an image of colours cannot be read as {channels} channels")
    pixels = np.asarray(image.convert(mode))
    return pixels.reshape(*pixels.shape[:2], channels)


def to_channels(pixels: NDArray[Any], channels: int) -> NDArray[Any]:
    """Return (..., H, W, C) with another number of channels: three of grey, or grey of three (ITU-R 601)."""
    have = pixels.shape[-1]
    if have == channels:
        return pixels
    if have == 1 and channels == 3:
        return np.repeat(pixels, channels, axis=-1)
    if channels == 1 and have == 3:
        grey = pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
        if pixels.dtype.kind != "f":
            grey = grey.round()
        return grey.astype(pixels.dtype)[..., None]
    raise Broken(f"{have} channels cannot become {channels}")
