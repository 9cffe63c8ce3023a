"""Panels of images, texts, clips and sounds: on disk, and in a report."""

import base64
import io
import re
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from selfsup.reports.embedding_map import TILE, draw_map
from selfsup.reports.items import Items
from selfsup.reports.media import (
    BANDS,
    COLUMNS,
    STRIP,
    figure,
    player,
    spectrogram,
    strip,
    to_image,
    to_media,
    to_words,
    wav,
)
from selfsup.reports.page import Section, page
from selfsup.reports.sheets import SIDE, save_panels
from selfsup.spec import Clip, ImageSpec, Media, Waveform
from selfsup.task import Panel

SPEC = ImageSpec.of(8, 3)
RATE = 8000


def clip(count: int = 10) -> Clip:
    frames = np.zeros((count, 8, 12, 3), np.uint8)
    for number, frame in enumerate(frames):
        frame[:] = 20 * number
        frame[:, number] = 255
    return Clip(frames, rate=5)


def tone(hertz: float = 1000, seconds: float = 0.5) -> Waveform:
    return Waveform(np.sin(2 * np.pi * hertz * np.arange(int(RATE * seconds)) / RATE).astype(np.float32), RATE)


MEDIA: dict[str, Media] = {
    "image": Image.new("RGB", (8, 8), "red"), "text": "a <b>text</b>", "clip": clip(), "waveform": tone()
}  # fmt: skip


@pytest.mark.parametrize("name", MEDIA)
@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_a_panel_of_each_is_drawn(tmp_path: Path, name: str, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    save_panels([[Panel(MEDIA[name], "first"), Panel(MEDIA[name], "second")]], SPEC, path)
    with Image.open(path) as image:
        assert np.unique(np.asarray(image.convert("L"))).size > 2
        assert getattr(image, "n_frames", 1) == (10 if (name, suffix) == ("clip", ".webp") else 1)


def test_a_tensor_is_drawn_by_the_spec_and_anything_else_is_shown_as_it_is() -> None:
    drawn = to_media(torch.zeros(3, 8, 8), SPEC)
    assert isinstance(drawn, Image.Image)
    assert drawn.size == (8, 8)
    for media in MEDIA.values():
        assert to_media(media, SPEC) is media
        assert (to_image(media) is None) == isinstance(media, str)
        assert to_words(media) == (media if isinstance(media, str) else "")


def test_a_shorter_clip_begins_again_beside_a_longer_one_and_an_image_stands_still(tmp_path: Path) -> None:
    path = tmp_path / "x.webp"
    save_panels([[Panel(clip(4), ""), Panel(clip(6), ""), Panel(MEDIA["image"], "")]], SPEC, path)
    with Image.open(path) as image:
        assert image.n_frames == 6
        image.load()
        assert image.info["duration"] == 200
        assert image.width == 3 * SIDE + 4 * 8


def test_a_strip_has_evenly_spaced_frames_with_lines_between(tmp_path: Path) -> None:
    pixels = np.asarray(strip(clip(11)))
    assert pixels.shape == (8, STRIP * 12 + (STRIP - 1) * 2, 3)
    assert [int(pixels[0, place * 14 + 11, 0]) for place in range(STRIP)] == [0, 40, 80, 120, 160, 200]
    assert (pixels[:, 12:14] == 255).all()
    assert strip(clip(2)).width == 2 * 12 + 2
    save_panels([[Panel(clip(), "")]], SPEC, tmp_path / "strip.png")
    with Image.open(tmp_path / "strip.png") as image:
        assert image.width == 3 * SIDE + 2 * 8


def timing(data: bytes) -> tuple[int, int]:
    """Return the number of frames of an animation, and the milliseconds of all."""
    with Image.open(io.BytesIO(data)) as image:
        total = 0
        for frame in range(image.n_frames):
            image.seek(frame)
            image.load()
            total += image.info["duration"]
        return image.n_frames, total


def test_a_player_has_the_frames_and_the_time_of_its_clip() -> None:
    assert timing(player(clip(10))) == (10, 2000)
    noise = np.random.default_rng(0).integers(0, 256, (100, 120, 200, 3), np.uint8)
    for rate, count in ((30.0, 20), (7.0, 20), (240.0, 20), (500.0, 10)):
        frames, total = timing(player(Clip(noise, rate)))
        step = 100 // count
        assert frames == count
        assert total == pytest.approx(1000 * count * step / rate, abs=1)
        assert total / frames >= 20, "faster, browsers slow it down"
    small = player(Clip(noise, 30.0))
    with Image.open(io.BytesIO(small)) as image:
        assert image.size == (96, 58)
        assert np.abs(np.asarray(image.convert("RGB")).mean() - noise[0].mean()) < 10
    assert len(small) < 64_000
    assert len(player(Clip(noise[:, :, :120], 30.0))) < 100_000, "what no codec makes small"
    assert "<span" not in figure(clip(1), "one frame", ""), "nothing moves"


def test_clips_move_on_the_map() -> None:
    shown = [clip(4), None, Image.new("RGB", (9, 9), "red"), clip(3)]
    items = Items(np.eye(4, dtype=np.float32), shown, [""] * 4, list("abcd"), np.full(4, -1), (), 4)  # type: ignore[arg-type]
    page = draw_map(items, np.random.default_rng(0).random((4, 2)))
    (sheet,) = re.findall(r"data:image/webp;base64,([^)]*)", page)
    assert timing(base64.b64decode(sheet)) == (4, 800)
    with Image.open(io.BytesIO(base64.b64decode(sheet))) as image:
        assert image.size == (2 * TILE, 2 * TILE)


def test_a_tone_is_a_line_in_the_spectrogram_at_its_height() -> None:
    for seconds in (0.01, 0.5, 60):
        image = spectrogram(tone(1000, seconds))
        assert image.width <= COLUMNS
        assert image.height == BANDS
        row = int(np.asarray(image.convert("L")).mean(1).argmax())
        assert row == pytest.approx(BANDS * (1 - 1000 / (RATE / 2)), abs=2), "1000 of 4000 Hz, from the bottom"


def test_a_sound_becomes_a_wav_file() -> None:
    sound = Waveform(np.array([0.0, 1.0, -2.0, 0.5], np.float32), RATE)
    with wave.open(io.BytesIO(wav(sound))) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate(), file.getnframes()) == (1, 2, RATE, 4)
        assert np.frombuffer(file.readframes(4), "<i2").tolist() == [0, 32767, -32767, 16384]


def test_a_report_shows_each_and_loads_nothing() -> None:
    body = [figure(media, f"{name} & more", name) for name, media in MEDIA.items()]
    text = page("t", "", [Section(f"s{number}", "s", part) for number, part in enumerate(body)]).decode()
    assert "media-src data:" in text
    assert "a &lt;b&gt;text&lt;/b&gt;" in text
    assert text.count("<img") == 4
    assert 'class="clip"' in text
    (animation,) = re.findall(r'src="data:image/webp;base64,([^"]*)"', text)
    with Image.open(io.BytesIO(base64.b64decode(animation))) as image:
        assert (image.n_frames, image.size) == (10, (12, 8))
    (player,) = re.findall(r"<audio[^>]*></audio>", text)
    assert "controls" in player
    data = base64.b64decode(re.search(r'src="data:audio/wav;base64,([^"]*)"', player)[1])
    assert data[:4] == b"RIFF"
    assert all(source.startswith("data:") for source in re.findall(r'src="([^"]*)"', text))
