"""Broken images by the thousand: pretrain, embed, evaluate and show go on, and name each one once with its reason.

    cd tests && python -m torture.files --count 10000

Makes as many damaged files as asked for, and as many sound ones, in a folder of their own; reads each file once to
learn what is broken; then runs the four commands, and compares. As root it gives up the right to read what it may not.
Prints one JSON line a command; exits with 1 if anything differs, or memory, open files or threads grow.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shutil
import struct
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

SUFFIXES = {
    "JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "TIFF": "tif", "BMP": "bmp", "wide TIFF": "tiff",
    "NPY": "npy",
}  # fmt: skip
CLASSES = ("ant", "bee", "cat\n", "d\udce9g")  # names with a line break, and with what is no UTF-8
FEATURES = 8192  # bytes of an image's features, of all representations together
DAMAGE = ("flip", "flip", "cut", "header", "size", "suffix", "empty", "noise", "middle", "tail")


def main() -> int:
    """Make the files, run the commands, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000, help="damaged files; as many sound ones are added")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if os.geteuid() == 0 and "AS_ANYONE" not in os.environ and shutil.which("setpriv"):
        rights = "-dac_override,-dac_read_search"
        prefix = ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}"]
        os.environ["AS_ANYONE"] = "1"
        os.execvp(prefix[0], [*prefix, sys.executable, "-m", "torture.files", *sys.argv[1:]])
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SELFSUP_CACHE"] = f"{folder}/cache"
        make(Path(folder) / "images", options.count, options.seed)
        lines = survive(Path(folder), Path(folder) / "images")
    for line in lines:
        print(json.dumps(line), flush=True)
    return int(any(line["wrong"] for line in lines))


def make(root: Path, count: int, seed: int = 0) -> None:
    """Write `count` damaged files and as many sound ones below `root`, and one odd thing of each kind."""
    rng = random.Random(seed)
    sound = {kind: _sound(kind) for kind in SUFFIXES}
    places = [root / name / f"part{part}" for name in CLASSES for part in range(5)]
    for place in places:
        place.mkdir(parents=True)
    kinds = list(SUFFIXES)
    for number in range(count):
        kind = kinds[number % len(kinds)]
        how = DAMAGE[number // len(kinds) % len(DAMAGE)]
        data, suffix = damaged(rng.choice(sound[kind]), kind, how, rng), SUFFIXES[kind]
        if how == "suffix":
            suffix = SUFFIXES[rng.choice(kinds)]
        name = f"{number:06d}{rng.choice(('', ' ', chr(10), chr(0xDCE9)))}.{suffix}"
        (rng.choice(places) / name).write_bytes(data)
        whole = rng.choice(kinds)
        (rng.choice(places) / f"good{number:06d}.{SUFFIXES[whole]}").write_bytes(rng.choice(sound[whole]))
    first = places[0]
    (first / "folder.jpg").mkdir()
    (first / "loop.png").symlink_to(root)
    (first / "loop").symlink_to(root)
    (first / "nowhere.jpg").symlink_to("nothing")
    (first / "itself.gif").symlink_to("itself.gif")
    os.mkfifo(first / "pipe.png")
    (first / "forbidden.png").write_bytes(sound["PNG"][0])
    (first / "forbidden.png").chmod(0)
    (first / "device.png").symlink_to("/dev/zero")
    (first / "scans.jpg").write_bytes(_many_scans())
    (first / "script.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/tmp/harmed) (w) file\n")
    (first / "bomb.png").write_bytes(_png(30_000, 30_000))
    (first / "wide.png").write_bytes(_png(9_000, 9_000))  # many pixels in few bytes, and allowed


def damaged(data: bytes, kind: str, how: str, rng: random.Random) -> bytes:
    """Return an image file's bytes with one kind of damage."""
    out = bytearray(data)
    if how == "flip":
        for _ in range(rng.choice((1, 3, 20))):
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    elif how == "cut":
        del out[rng.randrange(1, len(out)) :]
    elif how == "header":
        other = rng.choice([b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"RIFF\0\0\0\0WEBP"])
        out[: len(other)] = other
    elif how == "size" and kind == "NPY":  # as many digits as before
        out = bytearray(bytes(out).replace(b"(24, 30", rng.choice((b"(99, 99", b"(-1, 30", b"(24,  0", b"(24, 1e"))))
    elif how == "size":
        at, form = {
            "JPEG": (data.find(b"\xff\xc0") + 5, ">HH"), "PNG": (16, ">II"), "GIF": (6, "<HH"), "BMP": (18, "<ii"),
            "WEBP": (26, "<HH"), "TIFF": (int.from_bytes(data[4:8], "little") + 10, "<I"),
            "wide TIFF": (int.from_bytes(data[4:8], "little") + 10, "<I"),
        }[kind]  # fmt: skip
        most = {">HH": 65535, "<HH": 65535}.get(form, 2**31 - 1)
        values = [rng.choice((0, 1, most // 2, most)) for _ in range(len(form) - 1)]
        struct.pack_into(form, out, at, *values)
    elif how == "empty":
        out.clear()
    elif how == "noise":
        out[:] = rng.randbytes(len(out))
    elif how == "middle":
        at = rng.randrange(len(out))
        out[at : at + rng.choice((1, 10, 100))] = b""
    elif how == "tail":
        out += rng.randbytes(1000)
    return bytes(out)


def survive(folder: Path, root: Path, only: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Run every command on `root`, or some; return a line for each: seconds, growth, and what is wrong."""
    import selfsup
    from selfsup.data.open import open_data
    from selfsup.source import Broken

    source, broken = open_data(root), dict[str, str]()

    def learn() -> list[str]:
        for index in range(len(source)):
            try:
                source.read(index)
            except Broken as error:
                broken[source.path(index)] = str(error)
        expected = {"folder.jpg", "loop.png"}
        seen = {os.path.basename(source.path(index)) for index in range(len(source))}
        return [f"{name} was taken for an image" for name in expected & seen]

    run: Any = None

    def pretrain() -> list[str]:
        nonlocal run
        batch = min(64, len(source) // 4)
        run = selfsup.pretrain(
            root, encoder="convnet", size=16, epochs=2, batch_size=batch, workers=2, device="cpu", out=folder / "run",
            quiet=True,
        )  # fmt: skip
        lines = [json.loads(line) for line in (folder / "run" / "skipped.jsonl").read_text().splitlines()]
        named = Counter(line["path"] for line in lines)
        wrong = [f"{path!r} is named {times} times" for path, times in named.items() if times > 1]
        wrong += [f"{line} is not broken so" for line in lines if broken.get(line["path"]) != line["reason"]]
        missed = broken.keys() - named.keys()
        return wrong + ([f"{len(missed)} broken files are not named"] if len(missed) > batch else [])

    def embed() -> list[str]:
        done = selfsup.embed(run, root, out=folder / "x.parquet", device="cpu", quiet=True)
        return [] if done.rows == len(source) - len(broken) else [f"{done.rows} rows"]

    def evaluate() -> list[str]:
        selfsup.evaluate(
            run, data=root, labels="folders", shots="1,5", draws=2, scratch=False, device="cpu", quiet=True
        )
        return []

    def show() -> list[str]:
        selfsup.show("rotation", root, out=folder / "show.png")
        return []

    commands: dict[str, Callable[[], list[str]]] = {
        "read": learn, "pretrain": pretrain, "embed": embed, "evaluate": evaluate, "show": show,
    }  # fmt: skip
    kept = {"evaluate": FEATURES * len(source)}  # the features of all that it reads, to the end
    chosen = [name for name in commands if not only or name in only]
    lines = [_watched(name, commands[name], kept.get(name, 0)) for name in chosen]
    lines[0] |= {"files": len(source), "broken": len(broken), "reasons": Counter(broken.values())}
    return lines


def _watched(name: str, command: Callable[[], list[str]], kept: int) -> dict[str, Any]:
    """Run a command beside a thread that notes memory, open files and threads; the least of quarters are compared.

    `kept`: bytes that it may keep beside.
    """
    notes, done, began = [], threading.Event(), time.monotonic()

    def watch() -> None:
        while not done.wait(0.1):
            notes.append(_state())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        wrong = command()
    except Exception as error:
        wrong = [f"{type(error).__name__}: {error}"]
    finally:
        done.set()
        watcher.join()
    line: dict[str, Any] = {"command": name, "seconds": round(time.monotonic() - began, 1), "wrong": wrong}
    if len(notes) >= 40:  # in the first quarter things are still being made
        quarters = np.array(notes)[: len(notes) // 4 * 4].reshape(4, -1, 3)
        grown = quarters[3].min(0) - quarters[1].min(0)
        line |= {
            "MB grown": round(float(grown[0]) / 1e6, 1),
            "files grown": int(grown[1]),
            "threads grown": int(grown[2]),
        }
        wrong += ["memory grows"] if grown[0] > 100e6 + kept else []
        wrong += ["open files or threads grow"] if grown[1] > 2 or grown[2] > 2 else []
    return line


def _state() -> tuple[int, int, int]:
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * 4096
    return resident, len(os.listdir("/proc/self/fd")), threading.active_count()


def _sound(kind: str) -> list[bytes]:
    generator = np.random.default_rng(0)
    found = []
    for mode in ("RGB", "L"):
        small = Image.fromarray(generator.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        file = io.BytesIO()
        image = small.resize((30, 24), Image.Resampling.BICUBIC).convert(mode)
        if kind == "NPY":
            np.save(file, np.asarray(image))
        elif kind == "wide TIFF":
            tifffile.imwrite(file, np.asarray(image).astype(np.uint16) * 257, compression="zlib", predictor=True)
        else:
            image.save(file, kind)
        found.append(file.getvalue())
    return found


def _png(wide: int, high: int) -> bytes:
    """Return a whole PNG of black pixels, one bit each."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer = zlib.compressobj(9)
    row = bytes(1 + (wide + 7) // 8)
    rows = b"".join(packer.compress(row) for _ in range(high)) + packer.flush()
    head = struct.pack(">IIBBBBB", wide, high, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _many_scans() -> bytes:
    """Return a JPEG of a few hundred kilobytes whose last scan comes again ten thousand times, each a pass over all."""
    file = io.BytesIO()
    Image.new("RGB", (3000, 2000)).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * 10_000 + data[-2:]


if __name__ == "__main__":
    sys.exit(main())
