"""Images as instruments write them: TIFF of any number of bands and any type, .npy, 16-bit colour PNG."""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray

from selfsup.source import Broken
from selfsup.spec.image import MAX_CHANNELS

T = TypeVar("T")

MAX_VALUES = 400_000_000  # of one image: pixels times channels
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ALPHA = (1, 2)  # ExtraSamples that mean transparency
_NAMES = {0: "", 5: "LZW", 7: "JPEG", 8: "Deflate", 32773: "PackBits", 34712: "JPEG 2000", 50000: "Zstandard"}


def is_npy(data: bytes) -> bool:
    """Return whether the bytes are a .npy file."""
    return data.startswith(npy.MAGIC_PREFIX)


def is_wide_png(data: bytes) -> bool:
    """Return whether the bytes are a PNG of 16 bits and several channels, of which Pillow reads only the high bytes."""
    return data.startswith(b"\x89PNG\r\n\x1a\n") and data[24:25] == b"\x10" and data[25:26] in (b"\2", b"\4", b"\6")


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

    Channels come last, unless the first axis is at most 64 and the shortest of all.
    """
    if pixels.dtype.kind not in "buif":
        raise Broken(f"not numbers: {pixels.dtype}")
    if pixels.ndim == 3 and pixels.shape[0] <= MAX_CHANNELS and pixels.shape[0] < min(pixels.shape[1:]):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or 0 in pixels.shape or pixels.shape[2] > MAX_CHANNELS:
        raise Broken(f"not an image of 1 to {MAX_CHANNELS} channels: {pixels.shape}")
    if pixels.dtype.itemsize > 8:
        pixels = pixels.astype(np.float64)
    return np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("="))


def read_wide_png(data: bytes) -> NDArray[Any]:
    """Return (H, W, C) uint16 of a PNG of 16 bits."""
    from torchvision.io import ImageReadMode, decode_png

    wide, high = struct.unpack(">II", data[16:24])
    if wide * high * 4 > MAX_VALUES:
        raise Broken("too many pixels")
    try:
        read = decode_png(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.UNCHANGED)
    except RuntimeError:
        raise Broken("damaged") from None
    return np.ascontiguousarray(read.permute(1, 2, 0).numpy())


def read_tiff(data: bytes, page: int = 0) -> NDArray[Any]:
    """Return a page (H, W, C) of a TIFF in its own type: interleaved or planar, BigTIFF, integers and floats.

    Values that the file calls missing (GDAL_NODATA) are NaN. Raises `Broken` with the reason.
    """
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        try:
            one: Any = file.pages[page]
        except IndexError:
            raise Broken(f"has no page {page + 1}") from None
        if math.prod(one.shape) > MAX_VALUES:
            raise Broken("too many pixels")
        if math.prod(one.shape) * one.dtype.itemsize > 64 * len(data) and one.compression == 1:
            raise Broken("truncated")
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
        if pixels.ndim != 3 or pixels.shape[2] > MAX_CHANNELS:
            raise Broken(f"not an image of 1 to {MAX_CHANNELS} channels: {pixels.shape}")
        if pixels.dtype.kind not in "buif":
            raise Broken(f"not numbers: {pixels.dtype}")
        if int(one.photometric) == 0 and pixels.dtype.kind in "ub":  # white is 0
            pixels = ~pixels if pixels.dtype.kind == "b" else (2**one.bitspersample - 1) - pixels
        tag = one.tags.get("GDAL_NODATA")
        if tag is not None:
            pixels = _without(pixels, str(tag.value))
        return np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("="))


def tiff_header(data: bytes, made: Callable[[bool, int, bool, int], T]) -> T:
    """Return `made` of what the first page of a TIFF says: whether it is ordinary, its bands, alpha, and its pages."""
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        one: Any = file.pages[0]
        return made(False, int(one.samplesperpixel), False, len(file.pages))


def _without(pixels: NDArray[Any], nodata: str) -> NDArray[Any]:
    try:
        missing = pixels == float(nodata.strip("\0 "))
    except ValueError:
        return pixels
    if pixels.dtype.kind != "f":
        if not missing.any():
            return pixels
        pixels = pixels.astype(np.float32 if pixels.dtype.itemsize <= 2 else np.float64)
    return np.where(missing, np.nan, pixels).astype(pixels.dtype)


def _compression(page: Any) -> str:
    number = int(page.compression)
    return _NAMES.get(number) or str(getattr(page.compression, "name", number))
