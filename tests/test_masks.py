"""Labels of the places of images: how masks are read, what is refused, and segmentation with few labelled images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import selfsup
from selfsup.cli import main
from selfsup.data.image import Arrays
from selfsup.data.image.cutouts import Cutouts
from selfsup.data.masks import with_masks
from selfsup.data.open import open_data
from selfsup.encoders import build_encoder
from selfsup.errors import UserError
from selfsup.evaluation import frame_parts, mask_probes
from selfsup.evaluation.false_colours import class_colours, pca_colours
from selfsup.evaluation.frozen import FrozenEncoder
from selfsup.evaluation.mask_parts import MaskParts, make_mask_parts
from selfsup.evaluation.mask_probes import enlarge, patch_labels
from selfsup.evaluation.mask_readers import READERS, fit_reader
from selfsup.evaluation.metrics import confusion, iou, mean_iou
from selfsup.evaluation.result import Evaluation
from selfsup.reports.dense import patch_sections
from selfsup.source import Broken, Masks
from selfsup.spec import ImageSpec

RNG = np.random.default_rng(0)
SPEC = ImageSpec.of(16, 3)
COLOURS = np.array([[60, 60, 60], [220, 40, 40], [40, 40, 220]], np.uint8)  # of class 0, 1 and 2


def squares(count: int, size: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Return images of a square of class 1 or 2, which its colour tells, and their masks; every fourth has both."""
    masks = np.zeros((count, size, size), np.uint8)
    for number, mask in enumerate(masks):
        for label in (1, 2) if number % 4 == 0 else (number % 2 + 1,):
            top, left = 4 * RNG.integers(0, size // 8 + 1, 2)  # at whole patches
            mask[top : top + size // 2, left : left + size // 2] = label
    return (COLOURS[masks] + RNG.integers(0, 20, (*masks.shape, 3))).astype(np.uint8), masks


def write(folder: Path, arrays: np.ndarray, suffix: str = ".png", **more: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(arrays):
        Image.fromarray(one).save(folder / f"{number}{suffix}", **more)
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Return a folder of 8 images and one of their masks."""
    x, masks = squares(8)
    return write(tmp_path / "images", x, ".jpg", quality=95), write(tmp_path / "masks", masks)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> selfsup.Run:
    x, _ = squares(16)
    out = tmp_path_factory.mktemp("run") / "run"
    return selfsup.pretrain(
        Arrays(x), encoder="convnet", steps=2, batch_size=8, out=out, quiet=True, device="cpu", precision="float32"
    )


def test_palettes_and_grey_values_are_the_numbers_of_classes(folders: tuple[Path, Path]) -> None:
    images, masks = folders
    truth = np.array([np.asarray(Image.open(masks / f"{i}.png")) for i in range(8)])
    image = Image.fromarray(truth[0])
    image.putpalette([*(9, 9, 9), *(200, 0, 0), *(0, 0, 200)])
    image.save(masks / "0.png")  # places of a palette, not its colours
    truth[1, 0, 0] = 255
    Image.fromarray(truth[1]).save(masks / "1.png")
    np.save(masks / "2.npy", truth[2].astype(np.int64))
    (masks / "2.png").unlink()
    Image.fromarray(truth[3].astype(np.uint16)).save(masks / "3.png")  # 16 bits
    opaque = np.full_like(truth[4], 255)
    Image.fromarray(np.dstack([truth[4], opaque])).save(masks / "4.png")  # grey and alpha
    Image.fromarray(np.dstack([truth[5]] * 3 + [opaque])).save(masks / "5.png")
    (masks / "classes.csv").write_text("id,name\n0,background\n1,red\n")
    source = with_masks(open_data(images), masks)
    assert source.masks.names == {0: "background", 1: "red"}
    for number in range(8):
        place = next(i for i in range(8) if source.path(i) == f"{number}.jpg")
        wanted = np.where(truth[number] == 255, -1, truth[number].astype(int))
        np.testing.assert_array_equal(source.masks.read(place), wanted)
        np.testing.assert_array_equal(source.take(np.array([place])).masks.read(0), wanted)
    assert source.fingerprint() != open_data(images).fingerprint()
    (masks / "classes.csv").unlink()
    (masks / "classes.json").write_text('{"0": "background", "255": "sky"}')
    place = next(i for i in range(8) if source.path(i) == "1.jpg")
    assert with_masks(open_data(images), masks).masks.read(place)[0, 0] == 255, "a class that has a name"


def test_files_that_are_no_masks_are_broken(folders: tuple[Path, Path]) -> None:
    images, masks = folders
    (masks / "0.png").write_bytes(b"no image")
    Image.fromarray(RNG.integers(0, 255, (16, 16, 3), np.uint8)).save(masks / "1.png")
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(masks / "2.png", "JPEG")
    found = with_masks(open_data(images), masks).masks
    for place, reason in enumerate(("not an image", "no numbers of classes", "a JPEG, which changes")):
        with pytest.raises(Broken, match=reason):
            found.read(place)
    (masks / "3.png").unlink()
    few = with_masks(open_data(images), masks)
    assert any("1 of 8 images have no mask" in note for note in few.notes)
    with pytest.raises(Broken, match="no mask"):
        few.masks.read(3)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("classes.csv", "number,name\none,cat\n", "is a whole number from 0 on, not 'one'"),
        ("classes.csv", "number,name\n1,cat\n1,dog\n", "names the class 1 twice"),
        ("classes.csv", "number,name\n1,cat\n2,cat\n", "two classes the same name"),
        ("classes.csv", "a,b,c\n1,2,3\n", "must have the columns number,name"),
        ("classes.json", "{", "is not JSON"),
        ("classes.json", "3", "neither a list of names nor names by number"),
        ("classes.json", '["cat", ""]', "the class 1 has no name"),
    ],
)
def test_names_that_cannot_be_read_are_one_line(name: str, content: str, told: str, folders: tuple[Path, Path]) -> None:
    images, masks = folders
    (masks / name).write_text(content)
    with pytest.raises(UserError, match=told):
        with_masks(open_data(images), masks)


def test_masks_of_other_images_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    images, masks = folders
    Image.new("L", (4, 4)).save(masks / "other.png")
    with pytest.raises(UserError, match=r"labels 1 paths that .* does not have, for example 'other'"):
        with_masks(open_data(images), masks)
    with pytest.raises(UserError, match="no such folder"):
        with_masks(open_data(images), tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no label images below"):
        with_masks(open_data(images), tmp_path / "empty")
    with pytest.raises(UserError, match="3 masks for the 8 images"):
        with_masks(open_data(images), np.zeros((3, 4, 4), np.uint8))


@pytest.fixture
def few_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let readers choose between two values."""
    for name, recipe in READERS.items():
        monkeypatch.setitem(READERS, name, recipe._replace(values=recipe.values[::2]))


def parts_of(x: np.ndarray, masks: np.ndarray | Masks, **more: Any) -> MaskParts:
    encoder = build_encoder(more.pop("encoder", "convnet"), SPEC)
    return make_mask_parts(with_masks(Arrays(x), masks), more.pop("test", None), encoder, more.pop("spec", SPEC), 0)


def listed(masks: list[np.ndarray], names: dict[int, str] | None = None) -> Masks:
    return Masks(np.arange(len(masks)), lambda number: masks[number], names or {})


def test_masks_that_do_not_fit_are_left_out_and_counted() -> None:
    x, masks = squares(20)
    several = [mask.astype(np.int64) for mask in masks]
    several[0] = np.kron(several[0], np.ones((2, 2), np.int64))  # twice the size of its image
    several[1] = several[1][:, :8]
    several[2][:] = -1
    several[3][0, 0] = 7
    parts = parts_of(x, listed(several, {0: "background", 1: "red", 2: "blue"}))
    told = "\n".join(parts.notes)
    assert (
        "2 of 20 images with a mask are left out: 1 of another shape than the image (save them as large as it" in told
    )
    assert "1 masks have another size than their image, in the same ratio" in told
    assert "classes in masks that have no name are called by their numbers: 7" in told
    assert parts.classes == ("background", "red", "blue", "7")
    assert len(parts.masks) == len(parts.images[0]) == 18
    np.testing.assert_array_equal(parts.masks[1], several[3] - 4 * (several[3] == 7))
    with pytest.raises(UserError, match="11 of 20 masks of arrays cannot be used: 11 of another shape"):
        parts_of(x, listed([mask[:, :8] if i < 11 else mask for i, mask in enumerate(masks)]))


def test_bad_masks_are_one_line() -> None:
    x, masks = squares(4)
    with pytest.raises(UserError, match=r"are of one class \('1'\); 255 means no label, unless classes.csv names it"):
        parts_of(x, np.where(masks > 0, 1, 255).astype(np.uint8))
    with pytest.raises(UserError, match=r"are of one class \('0'\)$"):
        parts_of(x, 0 * masks)
    with pytest.raises(UserError, match="4 of 4 masks of arrays cannot be used: 4 without a pixel that has a label"):
        parts_of(x, 0 * masks + 255)
    with pytest.raises(UserError, match="hold 1,023 different numbers: more than 256 are objects"):
        parts_of(x, np.arange(1024).reshape(4, 16, 16))
    with pytest.raises(UserError, match="needs an encoder with patch features"):
        parts_of(x, masks, encoder="mlp")
    with pytest.raises(UserError, match="has no masks: give --labels a folder of label images"):
        make_mask_parts(Arrays(x), None, build_encoder("convnet", SPEC), SPEC, 0)
    with pytest.raises(UserError, match="has one image with a usable mask"):
        parts_of(x[:1], masks[:1])


def test_every_image_is_measured_on_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_parts, "ENOUGH", 50)
    x, masks = squares(10)
    parts = parts_of(x, masks)
    assert parts.num_folds == 5
    assert np.bincount(parts.fold).tolist() == [2] * 5
    aside = parts_of(x, masks, test=with_masks(Arrays(x[:3]), masks[:3]))
    assert aside.fold.tolist() == [-1] * 10 + [0] * 3
    assert len(aside.copies()) == 3


def test_a_patch_has_the_class_of_most_of_its_labelled_pixels() -> None:
    mask = np.array([[0, 0, 1, 1], [0, 1, -1, 1], [-1, -1, 2, 0], [-1, -1, 2, 2]], np.int16)
    assert patch_labels(mask, (2, 2), 3).tolist() == [0, 1, -1, 2]
    assert patch_labels(mask, (1, 1), 3).tolist() == [0], "of equals the first"
    assert patch_labels(mask, (8, 4), 3).reshape(8, 4)[::2].tolist() == mask.tolist(), "patches finer than the mask"


def test_the_mean_iou_is_that_of_its_definition() -> None:
    truth, guess = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 3, 0])
    np.testing.assert_allclose(iou(confusion(truth, guess, 4)), [2 / 4, 1 / 3, 0, np.nan])
    assert mean_iou(truth, guess) == pytest.approx((1 / 2 + 1 / 3) / 3)


def test_probabilities_are_enlarged_before_the_class_is_chosen() -> None:
    patches = np.zeros((2, 2, 2), np.float32)
    patches[:, 0, 0] = patches[:, 1, 1] = 1
    assert enlarge(patches, (4, 8)).tolist() == [[0] * 4 + [1] * 4] * 4


def test_readers_are_chosen_by_images_that_were_held_out() -> None:
    """What is alike within an image only would make the nearest patch the best; across images more neighbours are."""
    images, y = np.arange(120) // 40, np.arange(120) % 2
    y[RNG.permutation(120)[:24]] = 0  # wrong labels
    near = np.arange(120) % 40 // 2 == np.arange(20)[:, None]
    x = np.concatenate([3 * np.eye(2)[np.arange(120) % 2], near.T * np.eye(3)[images].argmax(1)[:, None] % 3], 1)
    x = (x + 0.1 * RNG.normal(size=x.shape)).astype(np.float32)
    reader, k = fit_reader("knn", x, y, images, 3)
    assert k > 1
    assert reader(x).shape == (120, 3)
    assert fit_reader("knn", x, y, 0 * images, 3)[1] == 1, "of one image nothing can be held out"
    probe, _ = fit_reader("linear", x, y, images, 3)
    assert (probe(x).argmax(1) == np.arange(120) % 2).mean() > 0.9
    np.testing.assert_allclose(probe(x).sum(1), 1, rtol=1e-5)
    assert fit_reader("linear", x, y, 0 * images, 3)[1] == 0.1
    always, _ = fit_reader("linear", x, 0 * y + 2, images, 3)
    assert always(x[:5]).tolist() == [[0, 0, 1]] * 5, "a draw of one class"


@pytest.mark.usefixtures("few_values")
def test_what_colours_tell_is_read_off_colours(
    run: selfsup.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, masks = squares(40)
    result = selfsup.evaluate(run, data=x, labels=masks, target="masks", shots="1,8", draws=2, quiet=True)
    rows = {(score.representation, score.protocol) for score in result.scores}
    names = {run.task, "untrained", "raw colours", "raw colours + place"}
    assert rows == {(name, protocol) for name in names for protocol in ("linear", "knn")}
    best = result.score("raw colours", "linear", 8)
    assert best.mean > 0.75
    assert best.also["IoU of 1"][0] > 0.6
    assert best.also["pixel accuracy"][0] > 0.9
    assert best.mean == pytest.approx(np.mean([best.also[f"IoU of {n}"][0] for n in range(3)]))
    assert result.score("raw colours", "linear", 1).mean < best.mean
    assert result.about["chance"]["value"] == pytest.approx(result.about["variables"]["IoU of 0"]["chance"] / 3)
    assert "labelled image" in result.verdict
    text = str(result)
    assert "each class, with 8 labelled images, read by linear" in text
    assert str(Evaluation.load(run.folder / "evaluation.json")) == text
    sheet = Image.open(run.folder / "masks.png")
    assert sheet.width == 8 + 4 * 136
    larger = ImageSpec.of(24, 3)
    other = FrozenEncoder("other", build_encoder("convnet", larger).eval(), larger)
    monkeypatch.setattr("selfsup.evaluation.reference.load_reference", lambda name: other)
    again = selfsup.evaluate(
        run, data=x, labels=masks, target="masks", shots=[8], draws=2, protocol="knn", quiet=True,
        sheet=tmp_path / "sheet.png", reference="other",
    )  # fmt: skip
    assert again.score("other", "knn", 8).mean > 0.3, "of another size, in patches of its own"
    assert again.score("raw colours", "knn", 8) == result.score("raw colours", "knn", 8), "the same draws"
    assert (tmp_path / "sheet.png").exists()
    result.plot()
    shown = run.load(), Arrays(x), run.spec
    (section,) = patch_sections(*shown, result, run.folder, torch.device("cpu"), 0)
    assert section.body.count("<figcaption>patch features</figcaption>") == mask_probes.SHOWN
    assert "masks, true and predicted" in section.body
    (without,) = patch_sections(*shown, None, run.folder, torch.device("cpu"), 0)
    assert "masks, true and predicted" not in without.body


@pytest.mark.usefixtures("few_values")
def test_shuffled_masks_are_chance(run: selfsup.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_probes, "HELD", 1)  # images are read a batch at a time
    monkeypatch.setattr(mask_probes, "BATCH", 4)
    monkeypatch.setattr(mask_probes, "side_by_side", lambda work, jobs, device: list(map(work, jobs)))
    x, masks = squares(40)
    wrong = RNG.permuted(masks.reshape(40, -1), axis=1).reshape(masks.shape)
    result = selfsup.evaluate(
        run, data=x, labels=wrong, target="masks", shots=[8], draws=2, quiet=True, protocol="linear"
    )
    for name in (run.task, "raw colours"):
        assert result.score(name, "linear", 8).mean == pytest.approx(result.about["chance"]["value"], abs=0.05)


@pytest.mark.usefixtures("few_values")
def test_the_command_takes_folders(
    run: selfsup.Run, folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_parts, "ENOUGH", 50)
    monkeypatch.setattr(mask_probes, "side_by_side", lambda work, jobs, device: list(map(work, jobs)))
    images, masks = map(str, folders)
    words = ["evaluate", str(run.folder), "--data", images, "--labels", masks, "--target", "masks", "--quiet"]
    assert main([*words, "--shots", "2", "--draws", "2", "--protocol", "knn", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["about"]["metric"], told["about"]["folds"]) == ("mIoU", 5)
    assert {len(score["values"]) for score in told["scores"]} == {5}, "each image is measured on once"
    assert any("classes are called by their numbers" in note for note in told["notes"])
    assert main([*words, "--shots", "7"]) == 2
    assert "7 labelled samples asked for, but there are" in capsys.readouterr().err
    for more, reason in (
        (("--columns", "path=a"), "--columns is not for --target masks"),
        (("--metrics", "retrieval"), "unknown metrics of --target masks"),
        (("--protocol", "propagate"), "unknown protocol of --target masks"),
    ):
        assert main([*words, *more]) == 2
        assert reason in capsys.readouterr().err
    assert main(["evaluate", str(run.folder), "--data", images, "--sheet", "a.png"]) == 2
    assert "--sheet is for --target masks" in capsys.readouterr().err


def test_colours_of_features_and_classes() -> None:
    maps = np.zeros((2, 5, 4, 4), np.float32)
    maps[0, :, :2], maps[1, :, 2:] = RNG.normal(size=5)[:, None, None], RNG.normal(size=5)[:, None, None]
    colours = pca_colours(maps)
    assert colours.shape == (2, 4, 4, 3)
    assert len(np.unique(colours[0].reshape(-1, 3), axis=0)) == 2
    np.testing.assert_array_equal(colours[0, 2:], colours[1, :2])  # the same features have the same colours
    assert len(np.unique(class_colours(np.arange(-1, 20)[None], 20)[0], axis=0)) == 21


def sprites() -> tuple[np.ndarray, np.ndarray]:
    """Return cut-outs of two classes: red discs and blue frames."""
    x = np.zeros((4, 32, 32, 4), np.uint8)
    y, across = np.mgrid[:32, :32]
    x[:2, ..., 0], x[2:, ..., 2] = 255, 255
    x[:2, ..., 3] = 255 * ((y - 15.5) ** 2 + (across - 15.5) ** 2 < 200)
    x[2:, ..., 3] = 255 * (np.maximum(abs(y - 15.5), abs(across - 15.5)) > 8)
    return x, np.array([0, 0, 1, 1])


def test_cutouts_have_the_masks_of_what_is_seen() -> None:
    source = Cutouts(*sprites(), ("disc", "frame"), count=8)
    image, mask = source.native(3), source.masks.read(3)
    assert image.shape == (96, 96, 3)
    assert source.masks.names == {0: "background", 1: "disc", 2: "frame"}
    assert {0} < set(np.unique(mask))
    inside = image.astype(int)
    for label, channel in ((1, 0), (2, 2)):
        covered = np.concatenate([source.native(i)[source.masks.read(i) == label] for i in range(8)]).astype(int)
        others = np.delete(covered, channel, 1)
        assert np.mean((covered[:, channel] > 120) & (others.max(1) < 140)) > 0.95
    same = Cutouts(*sprites(), ("disc", "frame"), count=8).take(np.array([5, 3]))
    np.testing.assert_array_equal(same.native(1), inside)
    np.testing.assert_array_equal(same.masks.read(1), mask)
    assert not np.array_equal(Cutouts(*sprites(), ("disc", "frame"), count=8, seed=1).native(3), image)
    assert same.fingerprint() != source.fingerprint()
    parts = make_mask_parts(source, None, build_encoder("convnet", SPEC), SPEC, 0)
    assert parts.classes == ("background", "disc", "frame")
    with torch.no_grad():
        assert source.spec().size == 96
