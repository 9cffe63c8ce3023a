"""What `fuzz.py` mutates: for each format a function that makes a valid file and returns one case."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import random
import shutil
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lightning_fabric.plugins import Precision
from PIL import Image

import selfsup
from selfsup.data.image.decode import FORMATS as FORMATS_READ
from selfsup.data.image.decode import decode_image
from selfsup.data.open import open_data
from selfsup.run import Run, differences
from selfsup.source import Broken
from support.folders import write_images
from torture.fuzz import dumps, json_text, mutate_bytes, mutate_json

Case = Callable[[random.Random], object]


def _run(folder: Path) -> Path:
    run = folder / "run"
    selfsup.pretrain("digits", encoder="convnet", steps=2, batch_size=16, out=run, device="cpu", quiet=True)
    return run


def recipe(folder: Path) -> Case:
    """recipe.json of a run folder: opened, shown, loaded, told in the report."""
    from selfsup.reports import story

    run = _run(folder)
    plain = json.loads((run / "recipe.json").read_text())

    def case(rng: random.Random) -> None:
        (run / "recipe.json").write_bytes(json_text(plain, rng))
        found = Run(run)
        str(found), repr(found), json.dumps(found.as_json()), differences(found.recipe, plain)
        story.what_was_done(found, "")
        story.training(found, story.read_lines(run / "metrics.jsonl"))
        found.load()
        found.load_task()

    return case


def checkpoint(folder: Path) -> Case:
    """encoder.safetensors and the checkpoint: loaded, and put back into a task and its optimizer."""
    from selfsup.tasks import find_task
    from selfsup.train.checkpoint import load_tensors, restore, step_of
    from selfsup.train.optim import build_optimizer

    run = _run(folder)
    paths = [run / "encoder.safetensors", run / "checkpoint" / "latest.safetensors"]
    whole = [path.read_bytes() for path in paths]
    words = (
        b'"F32"',
        b'"F64"',
        b'"shape":[',
        b"[0]",
        b"[999999999999]",
        b'"data_offsets":[0,',
        b'"task.',
        b"optimizer.9",
    )
    task = find_task("rotation")(Run(run).fresh_encoder())
    optimizer = build_optimizer(task, "adamw", 1e-3, 0.05)

    def case(rng: random.Random) -> None:
        for path, data in zip(paths, whole, strict=True):
            head = 8 + int.from_bytes(data[:8], "little")
            if rng.random() < 0.7:  # only the header can do harm
                header = mutate_bytes(data[8:head], rng, words)
                size = len(header) if rng.random() < 0.8 else rng.choice((0, 1, 2**32, 2**63, len(data)))
                path.write_bytes(size.to_bytes(8, "little") + header + data[head:])
            else:
                path.write_bytes(mutate_bytes(data, rng, words))
        found = Run(run)
        if rng.random() < 0.5:
            found.load()
        elif rng.random() < 0.5:
            found.load_task()
        tensors, about = load_tensors(paths[1])
        step_of(about, paths[1])
        restore(tensors, task, optimizer, Precision(), paths[1])

    return case


def parquet(folder: Path) -> Case:
    """An embedding file: searched, its rows named, its images looked for."""
    from selfsup.data.vectors import VectorFile
    from selfsup.neighbours.index import nearest
    from selfsup.reports.finding import find_samples

    run = _run(folder)
    path = folder / "x.parquet"
    selfsup.embed(run, open_data("digits").take(np.arange(300)), out=path, device="cpu", quiet=True)
    kinds = [path.read_bytes()]
    table = pq.read_table(path)
    for options in ({"compression": "none", "use_dictionary": False}, {"compression": "gzip"}, {"version": "1.0"}):
        pq.write_table(table, path, row_group_size=100, **options)
        kinds.append(path.read_bytes())

    def case(rng: random.Random) -> None:
        data = rng.choice(kinds)
        footer = int.from_bytes(data[-8:-4], "little") + 8
        if rng.random() < 0.6:
            tail = mutate_bytes(data[-footer:-8], rng, (b"vector", b"path", b"digits"))
            size = len(tail) if rng.random() < 0.8 else rng.choice((0, 1, 2**31, 2**32 - 1))
            data = data[:-footer] + tail + size.to_bytes(4, "little") + b"PAR1"
        else:
            data = mutate_bytes(data, rng)
        path.write_bytes(data)
        file = VectorFile(path)
        names = file.names([0, len(file) - 1])
        nearest(file, np.ones(file.dim, np.float32), 3)
        file.find(names[0][0])
        find_samples("digits", [name for name, _ in names], 8)

    return case


def npz(folder: Path) -> Case:
    """Images and labels in an .npz file."""
    generator = np.random.default_rng(0)
    x, path = generator.integers(0, 256, (9, 8, 8), dtype=np.uint8), folder / "a.npz"
    kinds = []
    for y in (np.arange(9) % 3, np.array(list("abcabcabc")), np.linspace(0, 2, 9).round()):
        for save in (np.savez, np.savez_compressed):
            save(path, x=x, y=y)
            kinds.append(path.read_bytes())
    words = (
        b"'shape': (",
        b"999999999999,",
        b"'<U99999999'",
        b"'|O'",
        b"'|u1'",
        b"False",
        b"PK\x03\x04",
        b"PK\x01\x02",
        b"[('a', '|O')]",
    )

    def case(rng: random.Random) -> None:
        path.write_bytes(mutate_bytes(rng.choice(kinds), rng, words))
        source = open_data(path)
        source.read(0), source.spec(), source.fingerprint(), source.path(0)
        open_data(x, str(path))

    return case


def lists(folder: Path) -> Case:
    """A list file: its paths are read as images, and name classes."""
    for number in range(4):
        (folder / "a").mkdir(exist_ok=True)
        Image.new("RGB", (9, 9), (number, 0, 0)).save(folder / "a" / f"{number}.png")
    os.mkfifo(folder / "pipe.png")
    path, whole = folder / "list.txt", b"".join(b"a/%d.png\n" % number for number in range(4)) * 2
    words = (
        b"/dev/zero\n",
        b"/dev/stdin\n",
        b"pipe.png\n",
        b"\0",
        b"../",
        b"/",
        b"\xff\n",
        b"a/" * 3000,
        b"\r\n",
        b"\xef\xbb\xbf",
        b"/proc/self/mem\n",
    )

    def case(rng: random.Random) -> None:
        path.write_bytes(mutate_bytes(whole, rng, words))
        source = open_data(path)
        source.fingerprint(), source.spec()
        for index in range(len(source)):
            source.path(index)
            try:
                source.read(index)
            except Broken:
                continue
        open_data(path, "folders")

    return case


def labels(folder: Path) -> Case:
    """A CSV file of labels."""
    x, path = np.zeros((9, 8, 8), np.uint8), folder / "labels.csv"
    text = io.StringIO()
    csv.writer(text).writerows([("path", "label"), *((str(i), str(i % 3)) for i in range(9))])
    whole = text.getvalue().encode()
    words = (b'"', b",", b"\n", b"\0", b"\xff", b'""', b"path", b"label", b"9" * 400, b"5,b\n", b",,\n", b"nan", b"\r")
    from selfsup.evaluation.targets import TARGETS

    def case(rng: random.Random) -> None:
        path.write_bytes(mutate_bytes(whole, rng, words))
        source = open_data(x, str(path))
        assert source.labels is not None
        source.fingerprint(), str(source.labels.classes)
        chosen = source.labels.take(np.flatnonzero(source.labels.ids >= 0))
        for target in TARGETS.values():
            target.truth(chosen)

    return case


def logs(folder: Path) -> Case:
    """evaluation.json, metrics.jsonl and skipped.jsonl of a run folder: shown, reported, and gone on from."""
    from selfsup.evaluation.result import Evaluation
    from selfsup.reports import story
    from selfsup.reports.few_labels import few_labels, headline
    from selfsup.train.log import Log, Skipped

    run = _run(folder)
    options = {"shots": "1", "draws": 2, "protocol": "linear", "device": "cpu", "quiet": True}
    selfsup.evaluate(run, data="digits", **options)
    plain = json.loads((run / "evaluation.json").read_text())
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    metrics.append(metrics[-1] | {"step": 3, "health": "collapsed"})
    skipped = [{"path": "a.png", "reason": "empty file"}, {"path": "b.png", "reason": "not an image"}]
    digits = open_data("digits")

    def text(lines: list[Any], rng: random.Random) -> bytes:
        whole = b"".join(dumps(mutate_json(line, rng) if rng.random() < 0.5 else line) + b"\n" for line in lines)
        return mutate_bytes(whole, rng) if rng.random() < 0.3 else whole

    def case(rng: random.Random) -> None:
        (run / "evaluation.json").write_bytes(json_text(plain, rng))
        (run / "metrics.jsonl").write_bytes(text(metrics, rng))
        (run / "skipped.jsonl").write_bytes(text(skipped, rng))
        found = Run(run)
        story.training(found, story.read_lines(run / "metrics.jsonl"))
        story.skipped(story.read_lines(run / "skipped.jsonl"))
        Skipped(digits, run).add([(3, "empty file")])
        for path in run.glob("events*"):
            path.unlink()
        with Log(run, 2) as log:
            log.write({"step": 3, "loss": 0.5})
        saved = Evaluation.load(run / "evaluation.json")
        str(saved), json.dumps(saved.as_json()), few_labels(saved, ""), headline(saved)

    return case


def images(folder: Path) -> Case:
    """An image file, whatever it holds."""
    kinds = []
    shape = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    whole = Image.fromarray(shape).resize((45, 35))
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind, modes, options in (
        ("JPEG", ("RGB", "L", "CMYK"), {"exif": exif}), ("JPEG", ("RGB",), {"progressive": True}),
        ("PNG", ("RGB", "L", "LA", "RGBA", "P", "1"), {}), ("WEBP", ("RGB", "RGBA"), {}),
        ("WEBP", ("RGB",), {"lossless": True}), ("GIF", ("P", "L"), {}), ("BMP", ("RGB", "L", "P", "1"), {}),
        ("GIF", ("P",), {"save_all": True, "append_images": [whole.rotate(90)]}),
        ("TIFF", ("RGB", "L", "CMYK", "RGBA"), {}), ("TIFF", ("RGB", "L"), {"compression": "tiff_lzw"}),
        ("TIFF", ("RGB",), {"compression": "jpeg"}), ("TIFF", ("1",), {"compression": "group4"}),
        ("PPM", ("RGB", "L", "1"), {}),
    ):  # fmt: skip
        for mode in modes:
            file = io.BytesIO()
            whole.convert(mode).save(file, kind, **options)
            kinds.append(file.getvalue())

    for pixels in (shape.astype(np.uint16)[..., 0] * 257, shape[..., 0].astype(np.float32)):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG" if pixels.dtype == np.uint16 else "TIFF")
        kinds.append(file.getvalue())
    if "AVIF" in FORMATS_READ:
        file = io.BytesIO()
        whole.save(file, "AVIF")
        kinds.append(file.getvalue())
    kinds += [_wide_png(colours) for colours in (2, 4, 6)]
    words = (b"\xff\xda", b"IDAT", b"IHDR", b"VP8X", b"ANMF", b"\xff\xc4", b"eXIf", b"acTL", b"ispe")
    return _decoded(folder / "a.image", kinds, words)


def _wide_png(colours: int) -> bytes:
    """Return a PNG of 16 bits, in colour (2), or with transparency: grey (4), or in colour (6)."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    row = b"\0" + bytes(range(9 * {2: 6, 4: 4, 6: 8}[colours]))
    head = struct.pack(">IIBBBBB", 9, 7, 16, colours, 0, 0, 0)
    parts = chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(row * 7)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(folder: Path) -> Case:
    """A TIFF as instruments write them, read by tifffile: its header, its size, a page of it."""
    import tifffile

    generator = np.random.default_rng(0)
    kinds = []
    for dtype, shape, options in (
        ("uint16", (35, 45), {}), ("uint16", (35, 45, 5), {"planarconfig": "contig"}), ("float32", (35, 45), {}),
        ("float64", (5, 35, 45), {"planarconfig": "separate", "compression": "zlib"}), ("int16", (4, 35, 45), {}),
        ("uint16", (35, 45, 4), {"photometric": "rgb", "extrasamples": ["unassalpha"]}), ("bool", (35, 45), {}),
        ("uint8", (35, 45, 5), {"photometric": "separated", "extrasamples": ["unassalpha"]}),
        ("uint16", (48, 64), {"tile": (16, 16), "bigtiff": True, "compression": "zlib", "predictor": True}),
        ("int32", (35, 45), {"byteorder": ">", "extratags": [(42113, "s", 0, "-9999", True)]}),
        ("uint16", (35, 45), {"extratags": [(274, "H", 1, 6, True)], "rowsperstrip": 4, "compression": "lzma"}),
    ):  # fmt: skip
        file = io.BytesIO()
        pixels = (generator.random(shape) * 3000).astype(dtype)
        tifffile.imwrite(file, pixels, **({"photometric": "minisblack"} | options))  # type: ignore[arg-type]
        kinds.append(file.getvalue())
    return _decoded(folder / "a.tif", kinds, tuple(np.uint16(tag).tobytes() for tag in (256, 257, 258, 273, 277, 279)))


def npy(folder: Path) -> Case:
    """A .npy file, as an image in a folder, as a data set, and as labels."""
    generator = np.random.default_rng(0)
    kinds = []
    for pixels in (
        generator.integers(0, 256, (35, 45, 3), np.uint8), generator.random((35, 45)).astype(np.float16),
        generator.random((5, 35, 45)).astype(">f8"), np.asfortranarray(generator.random((35, 45, 2)) > 0.5),
        generator.integers(-99, 99, (9, 8, 8, 3)), np.arange(9), np.array(list("abcabcabc")),
    ):  # fmt: skip
        file = io.BytesIO()
        np.save(file, pixels, allow_pickle=False)
        kinds.append(file.getvalue())
    words = (
        b"'shape': (",
        b"999999999,",
        b"(1000000000,)",
        b"'<U9'",
        b"'|O'",
        b"'<f2'",
        b"True",
        b"()",
        b"\x02\x00",
        b"-1",
    )
    decoded = _decoded(folder / "a.npy", kinds, words)
    path, x = folder / "a.npy", np.zeros((9, 8, 8), np.uint8)

    def case(rng: random.Random) -> None:
        decoded(rng)
        if rng.random() < 0.5:
            open_data(x, str(path))
        source = open_data(path)
        source.read(0), source.spec(), source.fingerprint()

    return case


def videos(folder: Path) -> Case:
    """A video or an animation: its header, and its frames on a grid of time."""
    from selfsup.data.video.decode import about, decode
    from support.videos import write_video

    frames = np.random.default_rng(0).integers(0, 256, (12, 32, 48, 3), np.uint8)
    stills, kinds = [Image.fromarray(frame) for frame in frames[:4]], []
    for name, codec in (("a.mp4", "libx264"), ("a.avi", "mpeg4"), ("a.mkv", "libx264"), ("a.mov", "mpeg4")):
        kinds.append((name, write_video(folder / name, frames, codec=codec).read_bytes()))
    for name in ("a.gif", "a.webp"):
        stills[0].save(folder / name, save_all=True, append_images=stills[1:], duration=100)
        kinds.append((name, (folder / name).read_bytes()))

    def case(rng: random.Random) -> None:
        name, data = rng.choice(kinds)
        path = os.fsencode(folder / name)
        Path(folder / name).write_bytes(mutate_bytes(data, rng, (b"mdat", b"moov", b"trak", b"stts", b"idx1", b"ANMF")))
        try:
            about(path)
            for frame in islice(decode(path, rng.choice((1.0, 10.0, 60.0)), 24), 300):
                assert frame.ndim == 3
                assert frame.dtype == np.uint8
        except Broken:
            return

    return case


def sounds(folder: Path) -> Case:
    """A sound file: its header, what is there of it, spans at other rates, and all of them as a folder."""
    import soundfile

    from selfsup.data.audio.decode import about, measure, read

    generator = np.random.default_rng(0)
    kinds = []
    for kind in (
        "wav PCM_16 8000 1", "wav PCM_U8 11025 2", "wav PCM_24 44100 3", "wav FLOAT 16000 1", "wav DOUBLE 192000 8",
        "wav ULAW 8000 1", "wav IMA_ADPCM 22050 1", "wav MS_ADPCM 8000 2", "flac PCM_16 16000 1", "flac PCM_24 48000 2",
        "ogg VORBIS 44100 2", "ogg OPUS 48000 1", "mp3 MPEG_LAYER_III 16000 1", "mp3 MPEG_LAYER_III 44100 2",
        "aiff PCM_16 16000 1",
    ):  # fmt: skip
        suffix, subtype, rate, channels = kind.split()
        path = folder / f"whole.{suffix}"
        x = np.sin(np.arange(int(rate) // 2) / 9)[:, None] * generator.random(int(channels)) / 2
        soundfile.write(path, x, int(rate), subtype)
        kinds.append((suffix, path.read_bytes()))
        path.unlink()
    words = (b"RIFF", b"data", b"fmt ", b"fact", b"LIST", b"fLaC", b"OggS", b"OpusHead", b"\xff\xfb", b"Xing", b"ID3",
             b"COMM", b"SSND", b"\x7f\xc0\x00\x00", b"\xff\xff\xff\xff")  # fmt: skip

    def case(rng: random.Random) -> None:
        suffix, data = rng.choice(kinds)
        path = folder / "sounds" / f"a.{suffix if rng.random() < 0.9 else 'wav'}"
        shutil.rmtree(path.parent, ignore_errors=True)
        path.parent.mkdir()
        head = rng.choice((64, 512, len(data)))  # where harm is done
        path.write_bytes(mutate_bytes(data[:head], rng, words) + data[head:])
        try:
            about(os.fsencode(path))
            header, _ = measure(os.fsencode(path))
            rate = rng.choice((8000, 16000, 44100, header.rate))
            for _ in range(3):
                start = rng.choice((0, header.at(rate) // 2, max(0, header.at(rate) - 99)))
                assert read(os.fsencode(path), start, start + 1000, rate).dtype == np.float32
        except Broken:
            pass
        source: Any = open_data(path.parent)
        source = source.conform(source.spec(seconds=0.1))
        with suppress(Broken):
            assert len(source.read(0)) <= source.extent(0)

    return case


def shards(folder: Path) -> Case:
    """Packed images with a mutated tar, index, manifest or Parquet file; headers and the index have their sums."""
    from selfsup.data.shards.index import VERSION
    from selfsup.data.shards.pack import pack

    source = open_data(write_images(folder / "images", count=3), "folders")
    kinds: list[tuple[Path, str]] = []
    for to, suffixes in (("tar", (".tar", ".index", ".json")), ("parquet", (".parquet",))):
        pack(source, folder / to, to, quiet=True)  # type: ignore[arg-type]
        kinds += [(folder / to, suffix) for suffix in suffixes]
    words = (b"ustar", b"\x80", b"x", b"g", b"L", b"S", b"1 path=../a\n", b"7777777", b"PAR1", b"../")

    def case(rng: random.Random) -> None:
        whole, suffix = rng.choice(kinds)
        shutil.rmtree(folder / "shards", ignore_errors=True)
        shutil.copytree(whole, folder / "shards")
        path = next((folder / "shards").glob(f"*{suffix}"))
        data, alone = path.read_bytes(), rng.random() < 0.5
        if suffix == ".json":
            path.write_bytes(json_text(json.loads(data), rng))
        elif suffix == ".index":
            body = mutate_bytes(data[: -64 - len(VERSION)], rng, words)
            path.write_bytes(body + hashlib.blake2b(body).digest() + VERSION)
        else:
            path.write_bytes(_summed(mutate_bytes(data, rng, words)) if suffix == ".tar" else mutate_bytes(data, rng))
            if alone:
                (folder / "shards" / "shards.json").unlink()
        found: Any = open_data(folder / "shards")
        for index in range(len(found)):
            found.path(index)
            with suppress(Broken):
                found.content(index)

    return case


def _summed(data: bytes) -> bytes:
    """Return a tar in which every header has the checksum of what it says now."""
    out = bytearray(data)
    for start in range(0, len(out) - 511, 512):
        if out[start + 257 : start + 262] == b"ustar":
            head = out[start : start + 512]
            out[start + 148 : start + 156] = b"%06o\0 " % (sum(head[:148]) + sum(head[156:]) + 8 * 32)
    return bytes(out)


def _decoded(path: Path, kinds: list[bytes], words: tuple[bytes, ...]) -> Case:
    """Return a case that reads a mutated image file: as a sample, and as the query of a search."""
    from selfsup.data.image.decode import image_size, read_header
    from selfsup.data.image.query import open_query

    def case(rng: random.Random) -> None:
        data = mutate_bytes(rng.choice(kinds), rng, words)
        path.write_bytes(data)
        try:
            pixels = decode_image(data, rng.choice((None, 1, 3, 4)), rng.choice((0, 0, 0, 1, 3)))
            assert pixels.ndim == 3
            assert pixels.dtype.kind in "buif"
            read_header(data), image_size(data)
        except Broken:
            return
        source = open_query(str(path))
        try:
            source.conform(source.spec(size=16)).read(0)
        except Broken:
            return

    return case


def tables(folder: Path) -> Case:
    """A file of labels by path: separators, encodings, quotes, Parquet; for samples that have paths."""
    for number in range(6):
        (folder / "ab"[number % 2]).mkdir(exist_ok=True)
        Image.new("RGB", (9, 9), (number, 0, 0)).save(folder / "ab"[number % 2] / f"Ärger {number}.png")
    source = open_data(folder)
    rows = [("path", "note", "label"), *((source.path(i), f'a "b",\nc {i}', f"00{i % 3}") for i in range(6))]
    kinds = []
    for separator, encoding in (
        (",", "utf-8"),
        (";", "cp1252"),
        ("\t", "utf-16"),
        ("|", "utf-8-sig"),
        (",", "utf-32-le"),
    ):
        text = io.StringIO()
        csv.writer(text, delimiter=separator).writerows(rows)
        kinds.append(text.getvalue().encode(encoding))
    kinds.append(b"\r".join(f"{path},{label}".encode() for path, _, label in rows[1:]))  # no header, old Macs
    path = folder / "labels.data"
    for label in ([f"00{i}" for i in range(6)], [1, 2, None, 1, 2, 3], [["a", "b"], ["c"], [], ["a"], None, ["b"]]):
        pq.write_table(pa.table({"file": [row[0] for row in rows[1:]], "label": label}), path)
        kinds.append(path.read_bytes())
    words = (
        b'"',
        b",",
        b";",
        b"\t",
        b"\n",
        b"\r",
        b"\0",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"sep=;\n",
        b"path",
        b"PAR1",
        b"a/",
        b"\\",
    )

    def case(rng: random.Random) -> None:
        path.write_bytes(mutate_bytes(rng.choice(kinds), rng, words))
        columns = rng.choice(("", "", "", ":path=1,label=3", ":label=note", ":path=file,label=label"))
        found: Any = open_data(folder, f"{path}{columns}")
        found.fingerprint(), "".join(found.notes), str(found.labels.classes)

    return case


def texts(folder: Path) -> Case:
    """A file of texts: lines, JSON, CSV, TSV and Parquet in several encodings, with labels."""
    documents = [f"A sentence about thing {i}. Schön, 한국어, कुल! 😀" for i in range(6)]
    rows = [{"text": text, "label": i % 3} for i, text in enumerate(documents)]
    table = io.StringIO()
    csv.writer(table).writerows([("text", "label"), *((row["text"] + '\n"x"', row["label"]) for row in rows)])
    pq.write_table(pa.table({"text": documents, "label": list(range(6))}), folder / "a.parquet")
    whole = {
        ".txt": "\n".join(documents), ".jsonl": "\n".join(map(json.dumps, rows)), ".json": json.dumps(rows),
        ".csv": table.getvalue(), ".tsv": "text\tlabel\n" + "".join(f"{row['text']}\t1\n" for row in rows),
    }  # fmt: skip
    kinds = [
        (suffix, text.encode(encoding, errors="replace"))
        for suffix, text in whole.items()
        for encoding in ("utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-16-be", "utf-32")
    ]
    kinds.append((".parquet", (folder / "a.parquet").read_bytes()))
    words = (
        b'"',
        b"{",
        b"[",
        b"]",
        b"\\ud800",
        b"\n",
        b"\r",
        b"\0",
        b"\xff\xfe",
        b'"text":',
        b"1e999",
        b"\t",
        b"null",
        b"\xf0",
    )
    from selfsup.data.text.sources import open_query

    def case(rng: random.Random) -> None:
        suffix, data = rng.choice(kinds)
        path = folder / f"b{suffix}"
        path.write_bytes(mutate_bytes(data, rng, words))
        shutil.rmtree(folder / "cache", ignore_errors=True)  # each case is another corpus
        if rng.random() < 0.2:
            open_query(str(path)).read(0)
        column = rng.choice(("", ":text", ":text:label")) if suffix != ".txt" else ""
        source: Any = open_data(f"text:{path}{column}")
        source.fingerprint(), "".join(source.notes)
        for index in range(min(len(source), 50)):
            try:
                source.read(index)
            except Broken:
                continue

    return case


FORMATS: dict[str, Callable[[Path], Case]] = {
    "recipe": recipe, "checkpoint": checkpoint, "parquet": parquet, "npz": npz, "lists": lists, "labels": labels,
    "logs": logs, "images": images, "tiff": tiff, "npy": npy, "tables": tables, "texts": texts,
    "videos": videos, "sounds": sounds, "shards": shards,
}  # fmt: skip
