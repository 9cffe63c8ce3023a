"""Images as instruments write them: TIFF of any number of bands and any type, .npy, 16-bit colour PNG."""

from __future__ import annotations

import io
import logging
import math
import re
import struct
import zlib
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image

from selfsup.source import Broken
from selfsup.spec.image import MAX_CHANNELS

MAX_VALUES = 400_000_000  # of one image: pixels times channels
MAX_SIZE = 1 << 30  # bytes of one image
PNG = b"\x89PNG\r\n\x1a\n"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ALPHA = (1, 2)  # ExtraSamples that mean transparency: with colours multiplied by it, and without
INKS = 5  # the photometric interpretation of print
# EXIF orientation 1 to 8 -> swap the axes, then mirror left and right, then top and bottom
ORIENTATIONS = ((0, 0, 0), (0, 0, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 0), (1, 1, 0), (1, 1, 1), (1, 0, 1))
_NAMES = {0: "", 5: "LZW", 7: "JPEG", 8: "Deflate", 32773: "PackBits", 34712: "JPEG 2000", 50000: "Zstandard"}


def oriented(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return an image (H, W, C) upright, by its EXIF orientation from 1 to 8; any other number is ignored."""
    swap, mirror, upend = ORIENTATIONS[orientation if 0 < orientation < len(ORIENTATIONS) else 0]
    pixels = pixels.transpose(1, 0, 2) if swap else pixels
    pixels = pixels[:, ::-1] if mirror else pixels
    pixels = pixels[::-1] if upend else pixels
    return np.ascontiguousarray(pixels)


def is_npy(data: bytes) -> bool:
    """Return whether the bytes are a .npy file."""
    return data.startswith(npy.MAGIC_PREFIX)


def is_wide(data: bytes) -> bool:
    """Return whether the bytes are a PNG or PPM of colours of 16 bits, of which Pillow reads only the high bytes."""
    png = data.startswith(PNG) and data[24:25] == b"\x10" and data[25:26] in (b"\2", b"\4", b"\6")
    return png or _wide_ppm(data) is not None


def is_narrowed(data: bytes) -> bool:
    """Return whether the bytes are an AVIF or HEIF of 10 or 12 bits, which its decoder narrows to 8.

    The boxes are those of ISO/IEC 14496-15 (hvcC: bit_depth_luma_minus8) and of the AV1 codec's own (av1C:
    high_bitdepth).
    """
    head = data[:65536]
    if head[4:8] != b"ftyp":
        return False
    av1, hevc = head.find(b"av1C"), head.find(b"hvcC")
    flags = head[av1 + 6 : av1 + 7] if av1 >= 0 else b""
    depth = head[hevc + 21 : hevc + 22] if hevc >= 0 else b""
    return any(byte & 0x40 for byte in flags) or any(byte & 7 for byte in depth)


def has_alpha(data: bytes) -> bool:
    """Return whether the last channel of such a file is transparency."""
    return data.startswith(PNG) and data[25:26] in (b"\4", b"\6")


def _wide_ppm(data: bytes) -> tuple[int, int, int, int] | None:
    """Return width, height, largest value and where the pixels begin, of a PPM of colours of more than 8 bits."""
    found = re.match(rb"P6" + rb"(?:\s|#[^\n]*\n)+(\d{1,9})" * 3 + rb"\s", data[:1000]) if data[:2] == b"P6" else None
    wide, high, most = map(int, found.groups()) if found else (0, 0, 0)
    return (wide, high, most, found.end()) if found and 255 < most < 1 << 16 else None


def read_npy(data: bytes) -> NDArray[Any]:
    """Return an image (H, W, C) of a .npy file; without unpickling, and only what its bytes hold."""
    file = io.BytesIO(data)
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise Broken(f"a .npy file of the version {version}")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject or math.prod(shape) * dtype.itemsize > len(data):
        raise Broken("truncated" if not dtype.hasobject else "holds Python objects")
    return upright(npy.read_array(io.BytesIO(data), allow_pickle=False))


def upright(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return (H, W, C) of an array (H, W), (H, W, C) or (C, H, W), in the byte order of this machine, or `Broken`.

    Channels come last, unless the first axis is at most 64 and the shortest of all. What may be a stack of images is
    `Broken`: of four axes, and with more than four channels, as many as pixels a side.
    """
    if pixels.dtype.kind not in "buif":
        raise Broken(f"not numbers: {pixels.dtype}")
    if pixels.ndim == 4:
        raise Broken(f"a stack of images {pixels.shape}: give that file itself as data")
    if pixels.ndim == 3 and pixels.shape[0] <= MAX_CHANNELS and pixels.shape[0] < min(pixels.shape[1:]):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim == 3 and 0 not in pixels.shape and pixels.shape[2] > 4 and pixels.shape[2] >= min(pixels.shape[:2]):
        raise Broken(f"a stack of images, or their channels {pixels.shape}: give one file (N, H, W[, C]) as data")
    if pixels.ndim != 3 or 0 in pixels.shape or pixels.shape[2] > MAX_CHANNELS:
        raise Broken(f"not an image of 1 to {MAX_CHANNELS} channels: {pixels.shape}")
    if pixels.dtype.itemsize > 8:
        pixels = pixels.astype(np.float64)
    return np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("="))


def read_wide(data: bytes) -> NDArray[Any]:
    """Return (H, W, C) uint16 of a PNG of 16 bits, or of a PPM of 9 to 16 bits."""
    if about := _wide_ppm(data):
        wide, high, _, begin = about
        if wide * high * 6 > len(data) - begin:
            raise Broken("truncated")
        return np.frombuffer(data, ">u2", wide * high * 3, begin).reshape(high, wide, 3).astype(np.uint16)
    wide, high = struct.unpack(">II", data[16:24])
    if wide * high * 4 > MAX_VALUES:
        raise Broken("too many pixels")
    if data[25:26] == b"\4":  # grey and transparency have the four bytes of 8-bit colours and transparency
        head = b"IHDR" + data[16:24] + b"\x08\x06" + data[26:29]
        four = _png(data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:])
        return four[..., ::2].astype(np.uint16) << 8 | four[..., 1::2]
    return _png(data, "B").astype(np.uint16) << 8 | _png(data, "L")  # the high bytes, and the low ones


def _png(data: bytes, order: str | None = None) -> NDArray[np.uint8]:
    """Return the pixels of a PNG; of 16 bits the first byte of each value (B), or the second one (L)."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        if order is not None:
            tile: Any = image.tile[0]
            image.tile = [tile._replace(args=tile.args.replace("16B", f"16{order}"))]
        return np.asarray(image)


def read_tiff(data: bytes, page: int = 0) -> tuple[NDArray[Any], bool]:
    """Return a page (H, W, C) of a TIFF in its own type, and whether its last channel is transparency.

    Interleaved or planar, BigTIFF, integers and floats; CMYK becomes RGB. Where a file calls a value missing
    (GDAL_NODATA), its values are floats, and those NaN. Raises `Broken` with the reason.
    """
    with _opened(data) as file:
        try:
            one: Any = file.pages[page]
        except IndexError:
            raise Broken(f"has no page {page + 1}") from None
        if math.prod(one.shape) > MAX_VALUES or math.prod(one.shape) * one.dtype.itemsize > MAX_SIZE:
            raise Broken("too many pixels")
        if math.prod(one.shape) * one.dtype.itemsize > 64 * len(data) and one.compression == 1:
            raise Broken("truncated")
        if not any(one.databytecounts):
            raise Broken("holds no pixels")
        try:
            pixels = one.asarray(maxworkers=1)
        except ValueError as error:
            if "imagecodecs" in str(error):
                raise Broken(f"compressed as {_compression(one)}: pip install imagecodecs") from None
            raise
        axes = one.axes
        if "S" in axes:
            pixels = np.moveaxis(pixels, axes.index("S"), -1)
        elif pixels.ndim == 2:
            pixels = pixels[..., None]
        if pixels.ndim != 3 or 0 in pixels.shape or pixels.shape[2] > MAX_CHANNELS:
            raise Broken(f"not an image of 1 to {MAX_CHANNELS} channels: {pixels.shape}")
        if pixels.dtype.kind not in "buif":
            raise Broken(f"not numbers: {pixels.dtype}")
        if int(one.photometric) == 0 and pixels.dtype.kind in "ub":  # white is 0
            pixels = ~pixels if pixels.dtype.kind == "b" else (2**one.bitspersample - 1) - pixels
        inks, alpha = _meaning(one)
        if pixels.dtype.kind == "u" and alpha and ALPHA[0] in one.extrasamples:
            pixels = _as_if_opaque(pixels)
        if pixels.dtype.kind == "u" and inks:
            pixels = _from_inks(pixels)
        tag = one.tags.get("GDAL_NODATA")
        if tag is not None:
            pixels = _without(pixels, str(tag.value))
        alpha = alpha and pixels.dtype.kind == "u"
        orientation = one.tags.get("Orientation")
        pixels = oriented(pixels, 1 if orientation is None else int(orientation.value))
        return np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("=")), alpha


def tiff_header(data: bytes) -> tuple[int, bool, int]:
    """Return what the first page of a TIFF is read as: its channels and whether one is alpha; and how many pages."""
    with _opened(data) as file:
        one: Any = file.pages[0]
        inks, alpha = _meaning(one) if one.dtype is not None and one.dtype.kind == "u" else (False, False)
        bands = int(one.samplesperpixel) - inks
        if not 0 < bands <= MAX_CHANNELS + alpha:
            raise Broken(f"not an image of 1 to {MAX_CHANNELS} channels: {bands}")
        return bands, alpha and "GDAL_NODATA" not in one.tags, len(file.pages)


def _opened(data: bytes) -> Any:
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong with a file is said by `Broken`
    return tifffile.TiffFile(io.BytesIO(data))


def _meaning(page: Any) -> tuple[bool, bool]:
    """Return whether the channels of a page are the four inks of print, and whether the last one is transparency."""
    extra = tuple(int(kind) for kind in page.extrasamples)
    colours = int(page.samplesperpixel) - len(extra)
    inks = int(page.photometric) == INKS and colours == 4
    return inks, len(extra) == 1 and extra[0] in ALPHA and (inks or colours in (1, 3))


def _as_if_opaque(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return colours that were multiplied by their alpha as they were before."""
    most = np.iinfo(pixels.dtype).max
    cover = np.maximum(pixels[..., -1:], 1).astype(np.float64) / most
    colours = np.minimum(pixels[..., :-1] / cover, most).round().astype(pixels.dtype)
    return np.concatenate([colours, pixels[..., -1:]], -1)


def _from_inks(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return RGB, and the channels behind, of cyan, magenta, yellow and black."""
    most = np.iinfo(pixels.dtype).max
    paper = (most - pixels[..., :4].astype(np.float64)) / most
    colours = (paper[..., :3] * paper[..., 3:] * most).round().astype(pixels.dtype)
    return np.concatenate([colours, pixels[..., 4:]], -1)


def _without(pixels: NDArray[Any], nodata: str) -> NDArray[Any]:
    try:
        value = float(nodata.strip("\0 "))
    except ValueError:
        return pixels
    if pixels.dtype.kind != "f":
        info = np.iinfo(pixels.dtype)
        if not (value == value // 1 and info.min <= value <= info.max):
            return pixels
        pixels = pixels.astype(np.float32 if pixels.dtype.itemsize <= 2 else np.float64)
    return np.where(pixels == value, np.nan, pixels).astype(pixels.dtype)


def _compression(page: Any) -> str:
    number = int(page.compression)
    return _NAMES.get(number) or str(getattr(page.compression, "name", number))
