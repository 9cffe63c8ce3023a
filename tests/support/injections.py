"""Textures that tell nothing, and what optics, files and people add: each gives a place, a turn or time away."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

Images = NDArray[np.uint8]  # (N, S, S, 3)
Videos = NDArray[np.uint8]  # (N, T, S, S, 3)


def textures(count: int = 640, size: int = 72) -> Images:
    """Return coloured noise with a spectrum of 1 / f but for the coarsest part: alike everywhere and turned."""
    return _textures(count, size).copy()


@cache
def _textures(count: int, size: int) -> Images:
    generator = np.random.default_rng(0)
    f = np.fft.fftfreq(size)
    fall = 1 / np.maximum(np.hypot(f[:, None], f), 6 / size)
    shared, own = generator.normal(size=(count, size, size, 1)), generator.normal(size=(count, size, size, 3))
    spectrum = np.fft.fft2(shared + 0.3 * own, axes=(1, 2)) * fall[:, :, None]
    x = np.fft.ifft2(spectrum, axes=(1, 2)).real
    x = x / x.std((1, 2), keepdims=True)
    return (128 + 45 * x).clip(0, 255).astype(np.uint8)


def aberration(x: Images, strength: float = 0.05) -> Images:
    """Enlarge red and shrink blue about the middle, as a lens does."""
    channels = []
    for channel, scale in enumerate((1 - strength, 1.0, 1 + strength)):
        grid = F.affine_grid(torch.eye(2, 3)[None] * scale, [1, 1, *x.shape[1:3]], align_corners=False)
        plane = torch.from_numpy(x[..., channel]).float()[:, None]
        moved = F.grid_sample(plane, grid.expand(len(x), -1, -1, -1), padding_mode="reflection", align_corners=False)
        channels.append(moved[:, 0])
    return torch.stack(channels, -1).round().clamp(0, 255).to(torch.uint8).numpy()


def frame(x: Images, width: int = 4) -> Images:
    """Blacken the border."""
    framed = x.copy()
    framed[:, :width] = framed[:, -width:] = framed[:, :, :width] = framed[:, :, -width:] = 0
    return framed


def vignette(x: Images) -> Images:
    """Darken towards the corners."""
    place = np.linspace(-1, 1, x.shape[1])
    dark = 1 - 0.4 * (place[:, None] ** 2 + place**2)
    return (x * dark[:, :, None]).astype(np.uint8)


def jpeg(x: Images, quality: int = 15) -> Images:
    """Store as JPEG, in blocks of 8 × 8 pixels, and read again."""
    stored = np.empty_like(x)
    for number, image in enumerate(x):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling=0)
        stored[number] = np.asarray(Image.open(file))
    return stored


@cache
def panning(count: int = 240, frames: int = 20, size: int = 32) -> Videos:
    """Return a camera moving steadily over textures, which looks alike forwards and backwards."""
    generator = np.random.default_rng(1)
    still = textures(count, 72)
    first, last = generator.uniform(0, 72 - size, (2, count, 1, 2))
    corner = (first + (last - first) * np.linspace(0, 1, frames)[:, None]).round().astype(int)
    return np.stack(
        [[image[y : y + size, x : x + size] for y, x in places] for image, places in zip(still, corner, strict=True)]
    )


def fade_in(x: Videos) -> Videos:
    """Brighten over time."""
    return (x * np.linspace(0.6, 1, x.shape[1])[:, None, None, None]).astype(np.uint8)


def closing_bars(x: Videos) -> Videos:
    """Let black bars grow from above and below, up to an eighth of the frame."""
    barred = x.copy()
    for frame in range(x.shape[1]):
        width = round(x.shape[2] / 8 * frame / (x.shape[1] - 1))
        barred[:, frame, :width] = barred[:, frame, x.shape[2] - width :] = 0
    return barred


def worse_codec(x: Videos) -> Videos:
    """Store each frame as JPEG of lower quality than the one before, as frames far from a key frame are."""
    return np.stack([jpeg(x[:, frame], 90 - 80 * frame // x.shape[1]) for frame in range(x.shape[1])], 1)


def braking(x: Videos) -> Videos:
    """Let the camera slow down until it stands."""
    time = np.linspace(0, 1, x.shape[1])
    return x[:, ((x.shape[1] - 1) * (1 - (1 - time) ** 2)).round().astype(int)]


def last_cut(x: Videos) -> Videos:
    """End each video with a quarter of another one."""
    cut = x.copy()
    cut[:, -(x.shape[1] // 4) :] = np.roll(x, 1, 0)[:, -(x.shape[1] // 4) :]
    return cut


def shadow(x: Videos) -> Videos:
    """Let a shadow cross the frame once, as it does while the sun moves."""
    shaded = x.copy()
    for frame in range(x.shape[1]):
        width = round(x.shape[3] * frame / (x.shape[1] - 1))
        shaded[:, frame, :, :width] = shaded[:, frame, :, :width] // 2
    return shaded
