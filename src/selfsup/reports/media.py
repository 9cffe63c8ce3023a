"""What can be shown of a sample (`selfsup.spec.Media`), as images, as files and as HTML."""

from __future__ import annotations

import io
import wave

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from selfsup.reports.page import Html, captioned, data_uri, join, picture, tag
from selfsup.spec import Clip, Media, Spec, Waveform

STRIP = 6  # frames of a clip's contact strip
WINDOW, HOP, BANDS = 512, 128, 96  # of a spectrogram: samples, samples, rows
DECIBELS = 80.0  # from the loudest to black


def to_media(content: Tensor | Media, spec: Spec) -> Media:
    """Return what a panel shows: a tensor as the spec draws it, anything else as it is."""
    return spec.draw(content) if isinstance(content, Tensor) else content


def to_image(media: Media) -> Image.Image | None:
    """Return a still image: of a clip its contact strip, of a sound its spectrogram; None for a text."""
    if isinstance(media, Clip):
        return strip(media)
    if isinstance(media, Waveform):
        return spectrogram(media)
    return None if isinstance(media, str) else media


def to_words(media: Media) -> str:
    """Return what can be read, an empty string where nothing can."""
    return media if isinstance(media, str) else ""


def strip(clip: Clip, count: int = STRIP) -> Image.Image:
    """Return evenly spaced frames of a clip beside each other, white lines between them."""
    places = np.unique(np.linspace(0, len(clip.frames) - 1, count).round().astype(np.int64))
    frames = [np.pad(clip.frames[place], ((0, 0), (0, 2), (0, 0)), constant_values=255) for place in places]
    return Image.fromarray(np.concatenate(frames, 1)[:, :-2])


def spectrogram(sound: Waveform) -> Image.Image:
    """Return the power in dB below the loudest moment: time to the right, frequency upwards."""
    x = np.asarray(sound.samples, np.float64)
    x = np.pad(x, (0, max(0, WINDOW - len(x))))
    frames = np.lib.stride_tricks.sliding_window_view(x, WINDOW)[::HOP] * np.hanning(WINDOW)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    rows = np.stack([part.mean(1) for part in np.array_split(power[:, 1:], BANDS, axis=1)])
    level = 10 * np.log10(rows + 1e-12)
    grey = ((level - level.max()) / DECIBELS + 1).clip(0, 1)[::-1]
    return Image.fromarray((255 * grey).astype(np.uint8)).convert("RGB")


def animation(clip: Clip) -> bytes:
    """Return a clip as an animated WebP that runs for ever."""
    buffer = io.BytesIO()
    first, *rest = clip.images()
    duration = round(1000 / clip.rate)
    first.save(buffer, "webp", save_all=True, append_images=rest, duration=duration, loop=0, quality=80)
    return buffer.getvalue()


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
    """Return what is shown with a line below it: a clip as its contact strip, a sound as spectrogram and player."""
    if isinstance(media, str):
        return tag("figure", tag("p", media), tag("figcaption", caption), class_="words")
    image = to_image(media)
    assert image is not None
    if isinstance(media, Clip):
        return tag("figure", picture(image, alt, 96 * STRIP), tag("figcaption", caption))
    if isinstance(media, Waveform):
        player = Html(f'<audio controls preload="none" src="{data_uri(wav(media), "wav", "audio")}"></audio>')
        return tag("figure", join([picture(image, alt, 192), player]), tag("figcaption", caption))
    return captioned(image, alt, caption)
