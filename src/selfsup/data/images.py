"""One picture file -> uint8 pixels, whatever the file holds; what cannot be read is `Broken`, with a reason."""

from __future__ import annotations

import os
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

SUFFIXES = frozenset([".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"])
MAX_PIXELS = 200_000_000  # refused from the header alone, before memory is taken


class Broken(Exception):
    """A sample that cannot be read; the message is the reason under which it is counted."""


def read_image(path: str | bytes, channels: int) -> NDArray[np.uint8]:
    """Return (H, W, channels) uint8, upright by its EXIF tag; the first frame of an animation.

    16-bit pictures keep their high byte, transparency is laid over white, palettes and CMYK become RGB.
    Raises `Broken` for anything that is no readable picture of at most `MAX_PIXELS` pixels.
    """
    try:
        if os.path.getsize(path) == 0:
            raise Broken("empty file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Broken("too many pixels")
                return _pixels(ImageOps.exif_transpose(image), channels)
    except UnidentifiedImageError:
        raise Broken("not a picture") from None
    except Image.DecompressionBombError:
        raise Broken("too many pixels") from None
    except FileNotFoundError:
        raise Broken("missing file") from None
    except PermissionError:
        raise Broken("no permission") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise Broken("truncated" if "truncated" in str(error) else "damaged") from None


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
        return grey.round().astype(np.uint8)[..., None]
    raise Broken(f"{have} channels cannot become {channels}")
