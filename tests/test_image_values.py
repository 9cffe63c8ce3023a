"""Images as instruments write them: one range for a data set, every band, on every way in, and what is said of it."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

import selfsup
from selfsup.base.opening import data_opened
from selfsup.cli import main
from selfsup.data import Arrays, make_spec, open_data
from selfsup.data.image.instruments import is_narrowed
from selfsup.errors import UserError
from selfsup.source import Broken
from selfsup.spec import ImageSpec

RNG = np.random.default_rng(0)
SMALL = ["--encoder", "convnet", "--steps", "2", "--batch-size", "4", "--quiet", "--device", "cpu"]


def tiff(path: Path, x: np.ndarray) -> None:
    tifffile.imwrite(
        path.with_suffix(".tif"), x, photometric="minisblack", planarconfig="contig" if x.ndim > 2 else None
    )


def planar(path: Path, x: np.ndarray) -> None:
    x = x.transpose(2, 0, 1) if x.ndim == 3 else x
    kind: Any = {"planarconfig": "separate"} if x.ndim == 3 else {}
    tifffile.imwrite(path.with_suffix(".tif"), x, photometric="minisblack", bigtiff=True, compression="zlib", **kind)


def npy(path: Path, x: np.ndarray) -> None:
    np.save(path.with_suffix(".npy"), x)


WAYS: dict[str, Callable[[Path, np.ndarray], Any]] = {}


def folder_of(save: Callable[[Path, np.ndarray], None]) -> Callable[[Path, np.ndarray], str]:
    def write(folder: Path, x: np.ndarray) -> str:
        for number, image in enumerate(x):
            save(folder / f"{number:03}", image)
        return str(folder)

    return write


def listed(folder: Path, x: np.ndarray) -> str:
    folder_of(tiff)(folder, x)
    (folder / "list.txt").write_text("".join(f"{number:03}.tif\n" for number in range(len(x))))
    return str(folder / "list.txt")


def npz_file(folder: Path, x: np.ndarray) -> str:
    np.savez(folder / "x.npz", x=x)
    return str(folder / "x.npz")


def npy_file(folder: Path, x: np.ndarray) -> str:
    np.save(folder / "x.npy", x)
    return str(folder / "x.npy")


WAYS = {
    "tiff": folder_of(tiff), "planar": folder_of(planar), "npy": folder_of(npy), "list": listed, "npz": npz_file,
    "one npy": npy_file, "array": lambda _, x: x,
}  # fmt: skip
TYPES: dict[str, tuple[Any, float, float]] = {  # values from and to
    "float 0 to 1": (np.float32, 0, 1), "float64": (np.float64, -40, 60), "12 bits": (np.uint16, 0, 4096),
    "10 bits": (np.uint16, 0, 1024), "narrow": (np.uint16, 549, 1274), "int16": (np.int16, -500, 1500),
    "int32": (np.int32, 0, 70000), "uint16": (np.uint16, 0, 65536),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", TYPES)
def test_values_keep_their_order_and_at_least_8_bits(way: str, kind: str, tmp_path: Path) -> None:
    dtype, low, high = TYPES[kind]
    x = (low + RNG.random((6, 20, 24)) * (high - low)).astype(dtype)
    source: Any = open_data(WAYS[way](tmp_path, x))
    spec: Any = make_spec(source)
    assert spec.range is not None
    assert any("range" in note for note in source.notes)
    bound = source.conform(spec)
    read = np.stack([bound.read(i)[..., 0] for i in range(6)]).astype(np.float64)
    low, high = spec.range
    assert read.min() >= 0
    assert read.max() <= 1
    assert np.ptp(read) > 0.45
    np.testing.assert_allclose(read, (x.astype(np.float64) - low) / (high - low), atol=1e-6)
    assert ImageSpec.from_json(json.loads(json.dumps(spec.to_json())), tmp_path) == spec


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bands", [2, 5, 13, 64])
def test_every_band_arrives(way: str, bands: int, tmp_path: Path) -> None:
    x = (RNG.integers(0, 3000, (5, 70, 72, bands)) + 9 * np.arange(bands)).astype(np.uint16)
    source: Any = open_data(WAYS[way](tmp_path, x))
    spec: Any = make_spec(source, size=16)
    assert spec.channels == bands
    assert len(set(spec.mean)) > 1
    low, high = spec.range
    np.testing.assert_allclose(source.conform(spec).read(3), (x[3] - low) / (high - low), atol=1e-6)


def test_a_constant_image_is_read_like_any_other(tmp_path: Path) -> None:
    for number, value in enumerate((250, 300, 275)):
        Image.fromarray(np.full((16, 16), value, np.uint16)).save(tmp_path / f"{number}.png")
    source: Any = open_data(str(tmp_path))
    bound = source.conform(make_spec(source))
    first, second, third = (float(bound.read(i).mean()) for i in range(3))
    assert first < third < second
    assert abs((first + second) / 2 - third) < 1e-5


def test_ten_bits_of_which_eight_are_read_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing here writes such files; the bytes are those of the boxes of a file of 8 bits and of one of 10."""
    begin = b"\0\0\0\x1cftypheic\0\0\0\0" + b"\0" * 40
    for deep, box in ((b"\xfa", b"hvcC" + b"\0" * 17), (b"\x40", b"av1C\x81\0")):
        assert is_narrowed(begin + box + deep + b"\0" * 20)
        assert not is_narrowed(begin + box + (b"\xf8" if box[:1] == b"h" else b"\x0c"))
        assert not is_narrowed(begin + box)
    Image.fromarray(RNG.integers(0, 255, (16, 16, 3)).astype(np.uint8)).save(tmp_path / "a.png")
    make_spec(open_data(str(tmp_path)))
    assert "of which the upper 8 are read" not in capsys.readouterr().err
    monkeypatch.setattr("selfsup.data.image.instruments.is_narrowed", lambda data: True)
    make_spec(open_data(str(tmp_path)))
    assert "1 of 1 files looked at have 10 or 12 bits, of which the upper 8 are read" in capsys.readouterr().err


def test_colours_of_16_bits_are_not_cut_to_their_high_byte(tmp_path: Path) -> None:
    x = RNG.integers(0, 4096, (4, 12, 12, 3)).astype(np.uint16)
    for number, image in enumerate(x):
        tifffile.imwrite(tmp_path / f"{number}.tif", image, photometric="rgb")
    source: Any = open_data(str(tmp_path))
    spec: Any = make_spec(source)
    assert spec.range == (0, 4095)
    np.testing.assert_allclose(source.conform(spec).read(1), x[1] / 4095, atol=1e-6)


def test_nan_and_infinity_are_counted_and_nothing_but_nan_is_broken(tmp_path: Path) -> None:
    x = RNG.random((4, 8, 8)).astype(np.float32)
    x[0, 0, :3], x[1, 0, 0], x[3] = np.nan, np.inf, np.nan
    source: Any = open_data(WAYS["tiff"](tmp_path, x))
    bound = source.conform(make_spec(source))
    assert any("67 values are NaN and 1 are infinite" in note for note in source.notes)
    assert bound.read(0)[0, 0, 0] == 0
    assert bound.read(1)[0, 0, 0] == 1
    with pytest.raises(Broken, match="NaN"):
        bound.read(3)


def test_outliers_do_not_make_everything_black() -> None:
    x = RNG.random((8, 32, 32)).astype(np.float32)
    x[0, 0, 0] = 1e9
    spec = make_spec(Arrays(x))
    assert isinstance(spec, ImageSpec)
    assert spec.range is not None
    assert spec.range[1] < 2


@pytest.mark.parametrize(("given", "range"), [("0:1000", (0, 1000)), ("-5:500", (-5, 500)), ("dtype", (0, 65535))])
def test_a_range_can_be_given(given: str, range: tuple[float, float]) -> None:
    spec = make_spec(Arrays(RNG.integers(0, 900, (4, 8, 8)).astype(np.uint16)), range=given)
    assert isinstance(spec, ImageSpec)
    assert spec.range == range
    with pytest.raises(UserError, match="MIN:MAX"):
        make_spec(Arrays(np.zeros((4, 8, 8), np.uint8)), range="5:1")


def test_8_bit_images_are_read_as_before_and_dark_ones_are_said(tmp_path: Path) -> None:
    for number in range(4):
        Image.fromarray(RNG.integers(0, 2, (16, 16), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    source: Any = open_data(str(tmp_path))
    spec = make_spec(source)
    assert spec == ImageSpec.of(16, 3)
    assert "nearly black" in " ".join(source.notes)


def test_four_channels_are_the_four_that_are_stored(tmp_path: Path) -> None:
    x = RNG.integers(0, 256, (4, 16, 16, 4), dtype=np.uint8)
    for number, image in enumerate(x):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    source: Any = open_data(str(tmp_path))
    np.testing.assert_array_equal(source.conform(make_spec(source, channels=4)).read(2), x[2])
    assert make_spec(source) == ImageSpec.of(16, 3)


def test_pages_are_said_and_can_be_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pages = RNG.integers(0, 256, (3, 5, 16, 16), dtype=np.uint8)
    for number, stack in enumerate(pages):
        first, *others = map(Image.fromarray, stack)
        first.save(tmp_path / f"{number}.tif", save_all=True, append_images=others)
    make_spec(open_data(str(tmp_path)))
    assert "5 pages" in capsys.readouterr().err
    with data_opened(pages="all"):
        source: Any = open_data(str(tmp_path))
    assert len(source) == 15
    assert source.path(1) == "0.tif#2"
    np.testing.assert_array_equal(source.read(7)[..., 0], pages[1, 2])
    with data_opened(pages=4):
        np.testing.assert_array_equal(open_data(str(tmp_path)).read(2)[..., 0], pages[2, 3])


def test_what_a_folder_leaves_out_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        Image.fromarray(RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / f"{number}.jpg")
        os.rename(tmp_path / f"{number}.jpg", tmp_path / f"{number}.{('jfif', 'jpe', 'jpg', 'JPEG')[number]}")
        (tmp_path / f"{number}.psd").write_bytes(b"8BPS")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "back").symlink_to(tmp_path)
    assert len(open_data(str(tmp_path))) == 4
    said = capsys.readouterr().err
    assert all(word in said for word in ("4 .psd", "1 hidden folder", "1 link to folders"))
    with data_opened(follow_links=True):
        assert len(open_data(str(tmp_path))) == 4
    assert "back to a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lines", "why"),
    [("0.png  \n", "blanks"), ('"0.png"\n', "quotation"), ("0.png 1\n", "labels"), ("0.png,1\n", "labels"),
     (".\\0.png\r\n", "Windows"), ("~/0.png\n", "~"), (".\n", "folders"), ('["0.png"]', "JSON")],
)  # fmt: skip
def test_a_list_that_names_nothing_says_why(lines: str, why: str, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    (tmp_path / "list.txt").write_text(lines)
    with pytest.raises(UserError, match=why):
        open_data(str(tmp_path / "list.txt"))


def grey12(path: Path, x: np.ndarray) -> None:
    Image.fromarray(x[..., 0]).save(path.with_suffix(".png"))


@pytest.mark.parametrize(("save", "suffix", "channels"), [(tiff, ".tif", 5), (grey12, ".png", 3)])
def test_other_values_go_the_whole_way(
    save: Any, suffix: str, channels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(12):
        Path("data", "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        x = RNG.integers(0, 2900 + 1000 * (number % 2), (32, 32, 5)).astype(np.uint16)
        save(Path("data", "ab"[number % 2], str(number)), x)

    def run(*words: str) -> Any:
        assert main([*words, "--json"]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    run("show", "rotation", "data", "--out", "show.png")
    assert np.asarray(Image.open("show.png").convert("L")).std() > 10
    told = run("pretrain", "data", *SMALL, "--out", "run")
    spec = told["recipe"]["spec"]
    assert (spec["range"], spec["channels"], len(spec["mean"])) == ([0, 4095], channels, channels)
    assert any("uint16" in note for note in told["notes"])
    assert told["recipe"]["data"]["notes"] == told["notes"]
    quick = ("--draws", "2", "--shots", "1", "--no-scratch", "--quiet")
    assert run("evaluate", "run", "--data", "data", "--labels", "folders", *quick)["scores"]
    assert run("embed", "run", "data", "--labels", "folders", "--quiet", "--out", "e.parquet")["rows"] == 12
    found = run("search", "e.parquet", f"data/a/0{suffix}", "--out", "found.png")
    assert found["neighbours"][0]["path"] == f"a/0{suffix}"
    assert found["neighbours"][0]["similarity"] > 0.9999  # embedding and search read alike
    assert found["missing"] == 0
    told = run("report", "run", "--data", "data", "--labels", "folders", "--no-scratch", "--quiet")
    assert Path(told["path"]).stat().st_size > 10_000
    exported = run("export", "run", "--format", "torch", "-o", "encoder.pt2")["path"]
    encoder: Any = selfsup.load("run")
    example = encoder.spec.example(3) + 0.1
    import torch

    torch.testing.assert_close(torch.export.load(exported).module()(example), encoder(example), rtol=1e-4, atol=1e-4)
    assert selfsup.Run("run").spec == ImageSpec.from_json(spec, tmp_path)
