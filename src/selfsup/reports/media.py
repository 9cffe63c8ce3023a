"""Images, texts, clips and sounds (`selfsup.spec.Media`) as still images, files and HTML."""

from __future__ import annotations

import io
import math
import wave

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from selfsup.reports.page import Html, captioned, data_uri, embedded, image_tag, tag
from selfsup.spec import Clip, Media, Spec, Waveform

STRIP = 6  # frames of a clip's contact strip
SIDE, FRAMES, FASTEST = 96, 24, 50.0  # of a player: pixels a side, frames, frames a second, at most
QUALITY = 60  # of its WebP: noise in 24 frames of 96 pixels has about 60 kB
WINDOW, HOP = 512, 128  # of a spectrogram, in samples
COLUMNS, BANDS = 192, 96  # of its image, at most
DECIBELS = 80.0  # from the loudest to black


def to_media(content: Tensor | Media, spec: Spec) -> Media:
    """Return the content of a panel: a tensor as the spec draws it, anything else as it is."""
    return spec.draw(content) if isinstance(content, Tensor) else content


def to_image(media: Media) -> Image.Image | None:
    """Return a still image: of a clip its contact strip, of a sound its spectrogram; None for a text."""
    if isinstance(media, Clip):
        return strip(media)
    if isinstance(media, Waveform):
        return spectrogram(media)
    return None if isinstance(media, str) else media


def to_words(media: Media) -> str:
    """Return a text as it is, an empty string for anything else."""
    return media if isinstance(media, str) else ""


def strip(clip: Clip) -> Image.Image:
    """Return evenly spaced frames of a clip beside each other, white lines between them."""
    places = np.unique(np.linspace(0, len(clip.frames) - 1, STRIP).round().astype(np.int64))
    frames = [np.pad(clip.frames[place], ((0, 0), (0, 2), (0, 0)), constant_values=255) for place in places]
    return Image.fromarray(np.concatenate(frames, 1)[:, :-2])


def thinned(clip: Clip, side: int = SIDE, count: int = FRAMES) -> Clip:
    """Return every k-th frame, as fast as before: at most `count` frames of at most `side` pixels a side."""
    step = max(-(-len(clip.frames) // count), math.ceil(clip.rate / FASTEST), 1)
    images = Clip(clip.frames[::step]).images()
    for image in images:
        image.thumbnail((side, side))
    return Clip(np.stack([np.asarray(image) for image in images]), clip.rate / step)


def player(clip: Clip, side: int = SIDE) -> bytes:
    """Return a clip as an animated WebP that begins again, thinned to 24 frames of at most `side` pixels a side."""
    few = thinned(clip, side)
    ends = (1000 / few.rate * np.arange(len(few.frames) + 1)).round().astype(np.int64)  # milliseconds
    return webp(few.images(), np.diff(ends).tolist(), QUALITY)


def webp(images: list[Image.Image], duration: int | list[int], quality: int) -> bytes:
    """Return images as an animated WebP that begins again; `duration` in milliseconds, of each or of all."""
    buffer, (first, *others) = io.BytesIO(), images
    options = {"duration": duration, "loop": 0, "quality": quality}
    first.save(buffer, "webp", save_all=True, append_images=others, **options)
    return buffer.getvalue()


def spectrogram(sound: Waveform) -> Image.Image:
    """Return the power in dB below the loudest moment: time to the right, frequency upwards."""
    x = np.asarray(sound.samples, np.float64)
    x = np.pad(x, (0, max(0, WINDOW - len(x))))
    frames = np.lib.stride_tricks.sliding_window_view(x, WINDOW)[::HOP] * np.hanning(WINDOW)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    power = np.stack([part.mean(0) for part in np.array_split(power, min(COLUMNS, len(power)))])
    bands = np.stack([part.mean(1) for part in np.array_split(power[:, 1:], BANDS, axis=1)])
    level = 10 * np.log10(bands + 1e-12)
    grey = ((level - level.max()) / DECIBELS + 1).clip(0, 1)[::-1]
    return Image.fromarray((255 * grey).astype(np.uint8)).convert("RGB")


def wav(sound: Waveform) -> bytes:
    """Return a sound as a WAV file of 16 bits."""
    buffer = io.BytesIO()
    samples: NDArray[np.int16] = (np.asarray(sound.samples).clip(-1, 1) * 32767).round().astype("<i2")
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sound.rate)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


def figure(media: Media, alt: str, caption: object) -> Html:
    """Return the media with a caption below it: a sound as spectrogram and player, a clip as an animation.

    Printed, and where a reader has turned animations off, the clip is its contact strip.
    """
    if isinstance(media, str):
        return tag("figure", tag("p", media), tag("figcaption", caption), class_="words")
    image = to_image(media)
    assert image is not None
    if isinstance(media, Clip) and len(media.frames) > 1:
        few = thinned(media)
        moving = image_tag(player(few), "image/webp", alt, few.frames.shape[2], few.frames.shape[1])
        shown = [tag("span", moving, class_="moving"), tag("span", embedded(image, alt, SIDE * STRIP), class_="still")]
        return tag("figure", *shown, tag("figcaption", caption), class_="clip")
    if isinstance(media, Waveform):
        sound = tag("audio", controls="", preload="none", aria_label=alt, src=data_uri(wav(media), "audio/wav"))
        return tag("figure", embedded(image, alt, COLUMNS), sound, tag("figcaption", caption), class_="sound")
    return captioned(image, alt, caption)
