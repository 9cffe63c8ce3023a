"""Odd and broken image files: the right pixels, or skipped and counted. FUZZ=2000 for the long run."""

import io
import os
import resource
import struct
import subprocess
import sys
import threading
import time
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from selfsup.base import watchdog
from selfsup.data.image import decode
from selfsup.data.image.decode import MAX_PIXELS, decode_image, read_image
from selfsup.source import Broken


def make_image(mode="RGB", size=(60, 40)):
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    return Image.fromarray(np.stack([x, y, 255 - x], -1).astype(np.uint8)).convert(mode)


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_header(wide, high):
    """Return a PNG that promises wide × high pixels and holds a handful of bytes."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", wide, high, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return start + struct.pack(">I", 4) + b"IDAT" + b"\0" * 8


def jpeg_header(wide, high):
    data = bytearray(encoded(make_image(), "JPEG"))
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", high, wide)
    return bytes(data)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("turned", range(1, 9))
def test_exif_turns_are_undone(turned, fast, monkeypatch):
    if not fast:
        monkeypatch.setattr(decode, "simplejpeg", None)
    exif = Image.Exif()
    exif[0x0112] = turned
    data = encoded(make_image(), "JPEG", exif=exif, quality=95)
    wanted = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert np.array_equal(decode_image(data, 3), wanted)


@pytest.mark.parametrize(
    "options", [{}, {"quality": 30}, {"progressive": True}, {"subsampling": 0}, {"optimize": True}]
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_both_decoders_give_the_same_pixels(mode, options, channels, monkeypatch):
    data = encoded(make_image(mode), "JPEG", **options)
    fast = decode_image(data, channels)
    monkeypatch.setattr(decode, "simplejpeg", None)
    assert np.array_equal(fast, decode_image(data, channels))


def test_every_kind_of_pixel():
    wide = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    assert np.array_equal(decode_image(encoded(Image.fromarray(wide), "PNG"), 3)[..., 0], wide)
    clear = make_image("RGBA")
    clear.putalpha(0)
    assert (decode_image(encoded(clear, "PNG"), 3) == 255).all()
    clear = make_image("LA")
    clear.putalpha(0)
    assert (decode_image(encoded(clear, "PNG"), 3) == 255).all()
    palette = make_image().quantize(32)
    assert np.array_equal(decode_image(encoded(palette, "PNG"), 3), np.asarray(palette.convert("RGB")))
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    assert (decode_image(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), 3) == [255, 0, 0]).all()
    assert decode_image(encoded(make_image(size=(1, 1)), "JPEG"), 3).shape == (1, 1, 3)
    assert decode_image(encoded(make_image(), "PNG"), 4).shape == (40, 60, 4)
    cmyk = encoded(make_image("CMYK"), "JPEG", quality=95)
    assert np.abs(decode_image(cmyk, 3).astype(int) - np.asarray(make_image())).mean() < 6


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"once upon a time", "not an image"),
        (encoded(make_image(), "JPEG")[:-200], "truncated"),
        (encoded(make_image(), "PNG")[:-60], "truncated|damaged"),
        (b"\xff\xd8\xff", "not an image|damaged|truncated"),
    ],
)
def test_what_is_no_image_is_broken(data, reason, tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    with pytest.raises(Broken, match=reason):
        read_image(str(path), 3)


def test_missing_and_folder(tmp_path):
    with pytest.raises(Broken, match="missing"):
        read_image(str(tmp_path / "no.jpg"), 3)
    with pytest.raises(Broken):
        read_image(str(tmp_path), 3)


@pytest.mark.parametrize(
    "data", [png_header(30_000, 30_000), jpeg_header(30_000, 30_000), png_header(2**31 - 1, 2**31 - 1)]
)
def test_a_bomb_is_refused_before_it_takes_memory(data):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Broken, match="too many pixels"):
        decode_image(data, 3)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000
    assert MAX_PIXELS < 30_000 * 30_000


def test_mutated_files_neither_crash_nor_leak():
    rng = np.random.default_rng(0)
    kinds = [
        encoded(make_image(), "JPEG"),
        encoded(make_image("L"), "JPEG", progressive=True),
        encoded(make_image(), "PNG"),
        encoded(make_image().quantize(16), "GIF"),
        encoded(make_image(), "WEBP"),
        encoded(make_image("RGBA"), "TIFF"),
        encoded(make_image(), "BMP"),
        encoded(
            make_image("CMYK"), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
        ),
    ]
    peak, outcomes = 0, {"read": 0, "broken": 0}
    count = int(os.environ.get("FUZZ", "200"))
    for turn in range(count):
        data = bytearray(kinds[turn % len(kinds)])
        for _ in range(int(rng.integers(1, 12))):
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
        if turn % 5 == 0:
            del data[int(rng.integers(len(data))) :]
        try:
            pixels = decode_image(bytes(data), 3)
            assert pixels.dtype == np.uint8
            assert pixels.ndim == 3
            assert pixels.shape[2] == 3
            outcomes["read"] += 1
        except Broken:
            outcomes["broken"] += 1
        if turn == count // 2:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert min(outcomes.values()) > 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 900_000  # a few may promise many pixels


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")  # would be waited for
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")  # would never end
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(1 << 40)
    for name, reason in {
        "pipe.jpg": "not a regular",
        "zero.jpg": "not a regular",
        "huge.jpg": "file too large",
    }.items():
        with pytest.raises(Broken, match=reason):
            read_image(str(tmp_path / name), 3)
        with pytest.raises(Broken, match=reason):
            decode.image_size(decode.read_bytes(str(tmp_path / name)))
    with pytest.raises(Broken, match="no file can have this name"):
        read_image(b"a\0b.jpg", 3)
    with pytest.raises(Broken, match="cannot be read"):
        read_image(b"a" * 5000, 3)


def test_what_pillow_would_give_to_other_programs_is_no_image():
    with pytest.raises(Broken, match="not an image"):
        decode_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", 3)


@pytest.mark.parametrize("fast", [True, False])
def test_a_jpeg_of_endless_scans_is_refused(fast, monkeypatch):
    if not fast:
        monkeypatch.setattr(decode, "simplejpeg", None)
    data = encoded(Image.new("RGB", (3000, 2000)), "JPEG", progressive=True)
    assert decode_image(data, 3).shape == (2000, 3000, 3)
    last = data.rindex(b"\xff\xda")
    with pytest.raises(Broken, match="too many scans"):
        decode_image(data[:-2] + data[last:-2] * 10_000 + data[-2:], 3)


def test_a_decoder_that_hangs_is_cut_off_and_the_next_image_is_read(monkeypatch):
    wait, pixels = threading.Event(), decode.from_pillow
    monkeypatch.setattr(watchdog, "SECONDS", 1)
    monkeypatch.setattr(decode, "from_pillow", lambda image, channels: wait.wait(60))
    began = time.monotonic()
    with pytest.raises(Broken, match="takes too long"):
        decode_image(encoded(make_image(), "PNG"), 3)
    assert time.monotonic() - began < 30
    monkeypatch.setattr(decode, "from_pillow", pixels)
    assert decode_image(encoded(make_image(), "PNG"), 3).shape == (40, 60, 3)
    wait.set()


def test_a_process_does_not_wait_for_a_decoder_that_hangs():
    code = (
        "import time; from selfsup.base import watchdog; watchdog.SECONDS = 1\n"
        "try: watchdog.with_timeout(lambda: time.sleep(1000))\n"
        "except TimeoutError: print('cut off')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "cut off\n"


def test_decoders_share_few_threads_and_keep_no_image():
    data = encoded(make_image(), "PNG")
    for _ in range(50):
        decode_image(data, 3)
        with pytest.raises(Broken):
            decode_image(data[:60], 3)
    assert len([thread for thread in threading.enumerate() if thread.name == "patience"]) <= 4
