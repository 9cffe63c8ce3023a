"""Files, arrays and lists as people have them, beyond the usual ones: each is read right, said, or refused."""

import io
import os
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import redirect_stderr
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from selfsup.base.opening import data_opened
from selfsup.data import Arrays, make_spec, open_data
from selfsup.data.image.decode import read_image
from selfsup.data.image.items import Items
from selfsup.data.image.query import open_query
from selfsup.errors import UserError
from selfsup.reports.finding import find_samples
from selfsup.sklearn import InputError, SelfSupervisedEncoder
from selfsup.source import Broken

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (4, 20, 24, 4), dtype=np.uint8)
COLOURS[..., 3] = np.where(RNG.random((4, 20, 24)) < 0.5, 255, 64)
GREY12 = (RNG.random((8, 20, 24)) * 4095).astype(np.uint16)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(data: Any, channels: int | None = None) -> np.ndarray:
    """Return the images as an encoder gets them, from 0 to 1."""
    source: Any = data if hasattr(data, "conform") else open_data(data)
    bound = source.conform(make_spec(source, channels=channels))
    found = [bound.read(i) for i in range(len(source))]
    return np.stack([x if x.dtype == np.float32 else x / np.iinfo(x.dtype).max for x in found])


def heard(work: Callable[[], Any]) -> str:
    with redirect_stderr(io.StringIO()) as said:
        work()
    return said.getvalue()


def npz(x: np.ndarray) -> str:
    np.savez("x.npz", x=x)
    return "x.npz"


def npy(x: np.ndarray) -> str:
    np.save("x.npy", x)
    return "x.npy"


def folder(x: np.ndarray) -> str:
    Path("f").mkdir()
    for number, image in enumerate(x):
        Image.fromarray(image).save(f"f/{number}.png")
    return "f"


def listed(x: np.ndarray) -> str:
    folder(x)
    Path("list.txt").write_text("".join(f"f/{number}.png\n" for number in range(len(x))))
    return "list.txt"


# Transparency, inks and orientation, whatever the depth


def tiff(depth: int, alpha: str) -> Callable[[Path, np.ndarray], None]:
    def save(path: Path, x: np.ndarray) -> None:
        if alpha == "assocalpha":
            x = np.concatenate([(x[..., :-1] * (x[..., -1:] / 255)).round().astype(np.uint8), x[..., -1:]], -1)
        pixels = x if depth == 8 else x.astype(np.uint16) * 257
        kind = "rgb" if x.shape[-1] == 4 else "minisblack"
        tifffile.imwrite(f"{path}.tif", pixels, photometric=kind, extrasamples=[alpha], planarconfig="contig")

    return save


def png(path: Path, x: np.ndarray) -> None:
    Image.fromarray(x.squeeze(), {2: "LA", 4: "RGBA"}.get(x.shape[-1])).save(f"{path}.png")


def png16(path: Path, x: np.ndarray, damage: bool = False) -> None:
    """Write a PNG of 16 bits; Pillow writes none in colour."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data) ^ damage)

    rows = (x.astype(np.uint16) * 257).astype(">u2")
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    head = struct.pack(">IIBBBBB", x.shape[1], x.shape[0], 16, {2: 4, 3: 2, 4: 6}[x.shape[2]], 0, 0, 0)
    Path(f"{path}.png").write_bytes(PNG + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b""))


PNG = b"\x89PNG\r\n\x1a\n"
SAVE = {
    "png": png, "tiff": tiff(8, "unassalpha"), "tiff16": tiff(16, "unassalpha"), "associated": tiff(16, "assocalpha"),
    "png16": png16,
}  # fmt: skip
WAYS: dict[str, Callable[[], Any]] = {
    "folder": lambda: open_data("p"),
    "list": lambda: open_data("list.txt"),
    "query": lambda: open_query(str(next(Path("p").iterdir()))),
    "paths": lambda: SelfSupervisedEncoder()._source(sorted(Path("p").iterdir()) * 2, fitting=False),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", SAVE)
@pytest.mark.parametrize("bands", [[0, 1, 2, 3], [0, 3]])
def test_transparency_is_laid_over_white_or_a_channel(way: str, kind: str, bands: list[int]) -> None:
    x = COLOURS[0][..., bands]
    Path("p").mkdir()
    SAVE[kind](Path("p/0"), x)
    Path("list.txt").write_text(f"p/{next(Path('p').iterdir()).name}\n")
    cover = x[..., -1:] / 255
    wanted = x[..., :-1] / 255 * cover + 1 - cover
    np.testing.assert_allclose(read(WAYS[way]())[0], np.broadcast_to(wanted, (20, 24, 3)), atol=0.02)
    four = read(WAYS[way](), channels=4)[0]
    np.testing.assert_allclose(four[..., 3], x[..., -1] / 255, atol=0.02)
    np.testing.assert_allclose(four[..., 0], x[..., 0] / 255, atol=0.02)


@pytest.mark.parametrize(
    ("mode", "suffix"), [*((mode, suffix) for mode in ("P", "L", "RGB") for suffix in ("png", "webp")), ("P", "gif")]
)
def test_one_colour_that_is_transparent_is_white(mode: str, suffix: str) -> None:
    Path("p").mkdir()
    x = COLOURS[0][..., :3].copy()
    x[:5] = 40
    image = Image.fromarray(x).convert("L" if mode == "L" else "RGB")
    if mode == "P":
        image = image.quantize(32)
    clear: Any = image.getpixel((0, 0))
    if suffix == "webp":
        image = image.convert("RGBA")
        image.putalpha(Image.fromarray(np.where(np.arange(20)[:, None] < 5, 0, 255).astype(np.uint8).repeat(24, 1)))
    image.save(f"p/0.{suffix}", **({} if suffix == "webp" else {"transparency": clear}))
    found = read("p")[0]
    assert found.shape == (20, 24, 3)
    assert (found[:5] == 1).all()
    assert (found[5:] < 1).any()


@pytest.mark.parametrize("bands", [2, 3, 4])
def test_a_damaged_png_of_16_bits_is_broken_and_harms_nothing(bands: int) -> None:
    png16(Path("0"), COLOURS[0][..., :bands], damage=True)
    with pytest.raises(Broken, match=r"damaged|not an image"):
        read_image("0.png", None)
    png16(Path("0"), COLOURS[0][..., :bands])
    for length in range(20, os.path.getsize("0.png") - 20, 97):
        Path("1.png").write_bytes(Path("0.png").read_bytes()[:length])
        with pytest.raises(Broken):
            read_image("1.png", None)


@pytest.mark.parametrize("top", [255, 1023, 65535])
def test_ppm_keeps_its_bits(top: int) -> None:
    Path("p").mkdir()
    x = (RNG.random((20, 24, 3)) * top).astype(np.uint16)
    pixels = x.astype(">u2" if top > 255 else np.uint8).tobytes()
    Path("p/0.ppm").write_bytes(b"P6 # of a program\n24 20\n%d\n" % top + pixels)
    np.testing.assert_allclose(read("p")[0], x / top, atol=1e-6)


@pytest.mark.parametrize("way", [npz, npy, folder, listed, lambda x: x])
@pytest.mark.parametrize("channels", [2, 4, 5])
def test_grey_does_not_become_bands(way: Any, channels: int) -> None:
    with pytest.raises(UserError, match=f"not {channels}: give|cannot become {channels}"):
        make_spec(open_data(way(GREY12)), channels=channels)


@pytest.mark.parametrize("bands", [2, 4, 5])
def test_bands_do_not_become_one_or_three(bands: int) -> None:
    x = RNG.integers(0, 255, (3, 20, 24, bands)).astype(np.uint16)
    Path("p").mkdir()
    for number, image in enumerate(x):
        np.save(f"p/{number}.npy", image)
    for data in (x, "p"):
        for channels in (1, 3):
            with pytest.raises(UserError, match=f"{bands} channels, which cannot become {channels}"):
                make_spec(open_data(data), channels=channels)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("alpha", [False, True])
def test_inks_become_colours(depth: int, alpha: bool) -> None:
    Path("p").mkdir()
    x = np.concatenate([COLOURS[1], np.full((20, 24, 1), 255, np.uint8)], -1)[..., : 5 if alpha else 4]
    pixels, more = x if depth == 8 else x.astype(np.uint16) * 257, {"extrasamples": ["unassalpha"]} if alpha else {}
    tifffile.imwrite("p/0.tif", pixels, photometric="separated", planarconfig="contig", **more)  # type: ignore[arg-type]
    wanted = (1 - x[..., :3] / 255) * (1 - x[..., 3:4] / 255)
    np.testing.assert_allclose(read("p")[0], wanted, atol=0.01)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_every_tiff_is_upright(orientation: int, dtype: Any) -> None:
    Path("p").mkdir()
    x = (GREY12[0] / 4095 * (1 if dtype == np.float32 else np.iinfo(dtype).max)).astype(dtype)
    stored = np.rot90(x, {1: 0, 3: 2, 6: 1, 8: 3}[orientation])  # turned the other way
    tag = [(274, "H", 1, orientation, True)]
    tifffile.imwrite("p/0.tif", np.ascontiguousarray(stored), photometric="minisblack", extratags=tag)
    np.testing.assert_allclose(read("p")[0, ..., 0], GREY12[0] / 4095, atol=0.01)


@pytest.mark.parametrize("missing", [0, 9000])
def test_values_that_a_file_calls_missing_do_not_make_types_differ(missing: int) -> None:
    Path("p").mkdir()
    for i, x in enumerate(np.maximum(GREY12, 1)):
        if i % 2:
            x[:3] = missing
        tag = [(42113, "s", 0, str(missing), True)]
        tifffile.imwrite(f"p/{i}.tif", x, photometric="minisblack", extratags=tag)
    assert "several types" not in heard(lambda: read("p"))
    found = read("p")
    assert len(found) == 8
    assert (found[1, :3] == 0).all()


# Shapes that mean something else


@pytest.mark.parametrize("way", [npz, npy, lambda x: x, lambda x: SelfSupervisedEncoder().fit(x)])
@pytest.mark.parametrize(
    ("shape", "message"), [((9, 5, 30, 32), "channels come last"), ((9, 3, 30, 32), "last"), ((30, 32, 3), "x.None.")]
)
def test_arrays_whose_axes_stand_elsewhere_are_refused(way: Any, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises((UserError, InputError), match=message):
        open_data(way(RNG.integers(0, 255, shape).astype(np.uint8)))


@pytest.mark.parametrize("shape", [(100, 28, 28), (5, 28, 28, 3)])
def test_stacks_among_images_are_refused_with_the_remedy(shape: tuple[int, ...]) -> None:
    Path("p").mkdir()
    np.save("p/0.npy", np.zeros(shape, np.uint8))
    with pytest.raises(Broken, match=r"stack of images.*data"):
        open_data("p").read(0)
    assert len(open_data("p/0.npy")) == shape[0]


def test_bands_that_are_read_are_said() -> None:
    Path("p").mkdir()
    np.save("p/0.npy", np.zeros((20, 28, 30), np.uint8))
    source: Any = open_data("p")
    assert "have 20 channels, all of which are read" in heard(lambda: make_spec(source))
    assert source.read(0).shape == (28, 30, 3) or source.conform(make_spec(source)).read(0).shape == (28, 30, 20)


def test_truth_values_are_black_and_white(capsys: pytest.CaptureFixture[str]) -> None:
    Path("p").mkdir()
    np.save("p/0.npy", GREY12[0] > 2000)
    assert set(np.unique(read("p"))) == {0, 1}
    assert "black" not in capsys.readouterr().err


@pytest.mark.parametrize("mode", ["P", "LA", "CMYK", "RGBA", "1", "L", "tensor"])
def test_data_sets_of_torchvision_in_every_mode(mode: str) -> None:
    colours = Image.fromarray(COLOURS[0][..., :3])
    one: Any = COLOURS[0][..., :3].transpose(2, 0, 1) if mode == "tensor" else colours.convert(mode)
    images = [(one, 0)] * 3

    class Few:
        targets = (0, 1, 0)
        __len__ = images.__len__
        __getitem__ = images.__getitem__

    x = read(Items(Few(), "torchvision:Few"))[0]
    if mode in ("1", "L"):
        assert x.shape == (20, 24, 1)
    else:
        wanted = colours.convert("L").convert("RGB") if mode == "LA" else colours
        np.testing.assert_allclose(x, np.asarray(wanted) / 255, atol=0.6 if mode == "P" else 0.02)
        assert np.corrcoef(x.ravel(), np.asarray(wanted).ravel())[0, 1] > 0.8


# One range, and data of another


@pytest.mark.parametrize(
    ("given", "said"), [("0:2000", "% of the values looked at"), ("dtype", ""), ("-5:4095", ""), ("0:1", None)]
)
def test_clipped_values_are_said_and_nothing_left_is_refused(given: str, said: str | None) -> None:
    source = Arrays(GREY12)
    if said is None:
        with pytest.raises(UserError, match="leaves nothing"):
            make_spec(source, range=given)
        return
    make_spec(source, range=given)
    assert any("clipped" in note for note in source.notes) == bool(said)
    assert said in "".join(source.notes)


def query(x: np.ndarray) -> Any:
    folder(x)
    return open_query("f/0.png")


@pytest.mark.parametrize("way", [folder, listed, npz, npy, query, lambda x: x])
@pytest.mark.parametrize(
    ("trained", "data", "said"),
    [
        (GREY12, (GREY12 >> 4).astype(np.uint8), "of which they fill 6"),
        ((GREY12 >> 4).astype(np.uint8), GREY12, "trained on 8-bit images"),
        (GREY12, GREY12 * 8, "are outside and clipped"),
        (GREY12, GREY12 // 2, ""),
        ((GREY12 >> 4).astype(np.uint8), (GREY12 >> 5).astype(np.uint8), ""),
    ],
)
def test_data_with_other_values_than_those_of_the_encoder_are_said(
    way: Any, trained: np.ndarray, data: np.ndarray, said: str
) -> None:
    spec = make_spec(Arrays(trained))
    source: Any = way(data)
    source = source if hasattr(source, "conform") else open_data(source)
    told = heard(lambda: [source.conform(spec) for _ in range(3)])
    assert said in told
    assert len(told.splitlines()) == bool(said)


@pytest.mark.parametrize("way", [npz, npy, folder, lambda x: x])
def test_data_of_other_channels_than_those_of_the_encoder_are_refused(way: Any) -> None:
    x = RNG.integers(0, 4000, (6, 20, 24, 5)).astype(np.uint16)
    if way is folder:
        Path("f").mkdir()
        for number, image in enumerate(x):
            tifffile.imwrite(f"f/{number}.tif", image, photometric="minisblack", planarconfig="contig")
    source: Any = open_data("f" if way is folder else way(x))
    with pytest.raises(UserError, match="5 channels, which cannot become 3"):
        source.conform(make_spec(Arrays(GREY12), channels=3))
    assert source.conform(make_spec(Arrays(x))).read(0).shape == (20, 24, 5)


def test_a_type_that_the_sample_did_not_show_is_left_out_and_counted() -> None:
    folder(GREY12)
    source: Any = open_data("f")
    bound = source.conform(make_spec(source))
    Image.fromarray((GREY12[0] >> 4).astype(np.uint8)).save("f/0.png")
    with pytest.raises(Broken, match="uint8 values in a data set of others; --range MIN:MAX"):
        bound.read(0)
    assert bound.read(1).dtype == np.float32


def test_mixed_types_that_become_dark_are_said() -> None:
    folder(GREY12)
    Image.fromarray((GREY12[0] >> 4).astype(np.uint8)).save("f/0.png")
    assert "nearly black" in heard(lambda: make_spec(open_data("f")))


# Folders and lists


def test_hidden_files_are_counted_and_suffixes_in_capitals_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    folder(GREY12)
    os.rename("f/0.png", "f/0.PNG")
    os.rename("f/1.png", "f/._1.png")
    assert len(open_data("f")) == 7
    assert "1 hidden file is left out" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["X.NPZ", "X.NPY", "LIST.TXT"])
def test_names_of_data_in_capitals(name: str) -> None:
    os.rename({"X.NPZ": npz, "X.NPY": npy, "LIST.TXT": listed}[name](GREY12), name)
    assert len(open_data(name)) == len(GREY12)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_of_lists_end_in_any_way(end: str) -> None:
    folder(GREY12)
    Path("list.txt").write_bytes(end.join(f"f/{i}.png" for i in range(8)).encode())
    assert len(open_data("list.txt")) == 8


@pytest.mark.parametrize(
    ("lines", "message"), [("https://x.org/0.png\n" * 3, "download"), ("some words\n" * 20, "text:list.txt")]
)
def test_lists_of_something_else_are_refused(lines: str, message: str) -> None:
    Path("list.txt").write_text(lines)
    with pytest.raises(UserError, match=message):
        open_data("list.txt")


def test_paths_that_are_listed_twice_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    folder(GREY12)
    Path("list.txt").write_text("f/0.png\nf/1.png\nf/0.png\n")
    assert len(open_data("list.txt")) == 3
    assert "1 paths are listed more than once" in capsys.readouterr().err


def test_objects_and_other_names_in_npz_are_refused_with_the_remedy() -> None:
    np.savez("x.npz", x=np.array([None, {}], object))
    with pytest.raises(UserError, match=r"Python objects.*save an array"):
        open_data("x.npz")
    np.savez("x.npz", images=GREY12)
    with pytest.raises(UserError, match="it holds 'images'"):
        open_data("x.npz")


def test_a_large_npy_is_mapped_not_read() -> None:
    file = np.lib.format.open_memmap("x.npy", "w+", np.uint8, (100_000, 32, 32, 3))
    file[::1000] = RNG.integers(0, 256, (100, 32, 32, 3))
    file.flush()
    source: Any = open_data("x.npy")
    assert isinstance(source.x.base, np.memmap) or isinstance(source.x, np.memmap)
    assert make_spec(source).size == 32


@pytest.mark.parametrize("named", ["folder", "list"])
def test_pages_are_found_again_for_a_sheet(named: str) -> None:
    Path("p").mkdir()
    for name in ("0.tif", "1#2.tif"):
        pages = [Image.fromarray(np.full((8, 8), 60 * page, np.uint8)) for page in range(1, 4)]
        pages[0].save(f"p/{name}", save_all=True, append_images=pages[1:])
    Path("list.txt").write_text("p/0.tif\np/1#2.tif\n")
    data, prefix = ("p", "") if named == "folder" else ("list.txt", "p/")
    with data_opened(pages="all"):
        source = open_data(data)
    paths = [source.path(i) for i in range(len(source))]
    assert paths[:2] == [f"{prefix}0.tif", f"{prefix}0.tif#2"]
    found: Any = find_samples(data, [*paths, f"{prefix}0.tif#9", f"{prefix}2.tif"], 8)
    assert [image and image.getpixel((0, 0))[0] for image in found] == [60, 120, 180, 60, 120, 180, None, None]


def test_the_label_of_a_file_is_that_of_its_pages(capsys: pytest.CaptureFixture[str]) -> None:
    Path("p").mkdir()
    for name in ("0", "1", "2"):
        pages = [Image.fromarray(GREY12[i]) for i in range(3)]
        pages[0].save(f"p/{name}.tif", save_all=True, append_images=pages[1:])
    Path("l.csv").write_text("path,label\n0.tif,a\n1.tif,b\n1.tif#2,c\n")
    with data_opened(pages="all"):
        labels = open_data("p", "l.csv").labels
    assert labels is not None
    assert [labels.classes[i] if i >= 0 else None for i in labels.ids] == [*"aaabcb", None, None, None]
    assert "the label of a file is that of all its pages" in capsys.readouterr().err


def test_a_page_of_a_query_is_said() -> None:
    pages = [Image.fromarray(GREY12[i]) for i in range(3)]
    pages[0].save("q.tif", save_all=True, append_images=pages[1:])
    spec = make_spec(Arrays(GREY12))
    assert "3 pages" in heard(lambda: open_query("q.tif").conform(spec).read(0))


def test_the_words_after_two_dashes_are_no_options(monkeypatch: pytest.MonkeyPatch) -> None:
    import selfsup.cli as cli

    given: list[Any] = []
    monkeypatch.setattr(cli, "_function", lambda _: search)

    def search(embeddings: "str", query: "str", /, *, k: "int" = 10) -> Any:
        given.extend([embeddings, query, k])
        return SimpleNamespace(as_json=dict)

    assert cli.main(["search", "-k", "3", "--json", "--", "e.parquet", "--out/--json"]) == 0
    assert given == ["e.parquet", "--out/--json", 3]


def claims(kind: str) -> bytes:
    """Return a small file whose header claims 10^9 pixels."""
    if kind == "npy":
        file = io.BytesIO()
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (31623, 31623)})
        return file.getvalue() + bytes(999)
    if kind == "ppm":
        return b"P6 31623 31623 65535\n" + bytes(999)
    file = io.BytesIO()
    options: Any = {
        "tiff": {},
        "deflate": {"compression": "zlib"},
        "tiles": {"tile": (16, 16)},
        "big": {"bigtiff": True},
    }
    tifffile.imwrite(file, GREY12[0], photometric="minisblack", **options[kind])
    data = bytearray(file.getvalue())
    for page in tifffile.TiffFile(io.BytesIO(data)).pages:
        for name in ("ImageWidth", "ImageLength"):
            tag: Any = page.tags[name]  # type: ignore[union-attr]
            data[tag.valueoffset : tag.valueoffset + (4 if tag.dtype == 4 else 2)] = (31623).to_bytes(
                4 if tag.dtype == 4 else 2, "little"
            )
    return bytes(data)


@pytest.mark.parametrize("kind", ["npy", "ppm", "tiff", "deflate", "tiles", "big"])
def test_a_header_that_claims_a_thousand_million_pixels_allocates_nothing(kind: str) -> None:
    Path("p").mkdir()
    suffix = kind if kind in ("npy", "ppm") else "tif"
    Path(f"p/0.{suffix}").write_bytes(claims(kind))
    source: Any = open_data("p")
    tracemalloc.start()
    try:
        with pytest.raises(Broken):
            source.read(0)
        with data_opened(pages="all"), pytest.raises(Broken):
            open_data("p").read(0)
        if kind == "npy":
            with pytest.raises(UserError, match="declares an array"):
                open_data("p/0.npy")
            with pytest.raises(UserError, match="declares an array"):
                open_data(GREY12, "p/0.npy")
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
