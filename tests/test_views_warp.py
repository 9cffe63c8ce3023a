"""Warp, quarter turns, vertical flip and noise of views: what they do to pixels, on every path."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as F
from scipy.stats import ks_2samp, normaltest

from selfsup.data.image import Arrays
from selfsup.errors import UserError
from selfsup.spec import ImageSpec
from selfsup.views.image import Crop, ImageViews, draw, reference, warp
from selfsup.views.image import views as image_views
from test_views_fidelity import Listed, plain, smooth

TINY = 1e-4
ALL = {"degrees": 20.0, "shear": 10.0, "translate": 0.1, "elastic": 1.0}
TURNED = {"vertical_flip": 0.5, "quarter_turns": True}
ENGINES = [image_views.engine, reference]


@pytest.fixture(params=ENGINES, ids=["kernel", "torch"])
def engine(request, monkeypatch):
    monkeypatch.setattr(image_views, "engine", request.param)


def fetch(crop, source, channels=3, output="float32", seed=0, epoch=0, indices=None):
    """Return the views (B, V, S, S, C) as numbers from 0 to 1, or whole numbers."""
    views = ImageViews(plain(crop.size, channels), {"x": crop}, output=output)
    x = views.fetch(source, np.arange(len(source)) if indices is None else indices, seed, epoch).batch["x"]
    return (x if crop.count > 1 else x[:, None]).permute(0, 1, 3, 4, 2).numpy()


def drawn(crop, high, wide, count):
    """Return the places and the warps of views, first of all groups, seed and epoch 0."""
    shapes, indices = np.tile([[high, wide]], (count, 1)), np.arange(count)
    where = draw.places(crop, shapes, draw.draws(0, 0, indices, crop.count), 0, 0, indices, 0)
    return where, warp.warps(crop, where, shapes, 0, 0, indices, 0)


def ramps(high, wide):
    """Return an image whose two channels are its rows and columns, from 0 to 1 (H, W, 2)."""
    rows, columns = np.mgrid[:high, :wide].astype(np.float32) + 0.5
    return np.stack([rows / high, columns / wide], -1)


def places_of(crop, warped, row, view):
    """Return the place in the image (2, S, S) of each pixel of a view."""
    places = np.stack([*np.mgrid[: crop.size, : crop.size], np.ones((crop.size, crop.size))])
    if warped.knots is not None:
        bend = warp._bend(crop.size)
        places[:2] += bend @ warped.knots[row, view] @ bend.T
    return np.tensordot(warped.matrix[row, view], places, 1)


# turns


@pytest.mark.parametrize("channels", [1, 3, 5, 64])
@pytest.mark.parametrize("output", ["uint8", "float32"])
def test_turned_views_are_the_others_with_their_pixels_elsewhere(engine, channels, output):
    crop = Crop(20, count=2, scale=(0.2, 1.0), flip=0.5, jitter=(0.4, 0.4, 0.2, 0.1))
    pixels = np.stack([smooth(30, 41, channels, seed=i) for i in range(12)])
    for source in (Arrays(pixels), Listed(list(pixels))):
        straight = fetch(crop, source, channels, output)
        turned = fetch(replace(crop, **TURNED), source, channels, output)
        upside, quarters = draw.rotations(replace(crop, **TURNED), 0, 0, np.arange(12), 0)
        for place in np.ndindex(12, 2):
            wanted = straight[place][::-1] if upside[place] else straight[place]
            assert np.array_equal(turned[place], np.rot90(wanted, quarters[place]))
        upside_down = fetch(replace(crop, vertical_flip=1.0), source, channels, output)
        assert np.array_equal(upside_down, straight[:, :, ::-1])
    assert len(set(zip(upside.flat, quarters.flat, strict=True))) == 8


def test_each_turn_is_as_likely():
    upside, quarters = draw.rotations(Crop(8, count=2, vertical_flip=0.3, quarter_turns=True), 1, 0, np.arange(5000), 0)
    assert abs(upside.mean() - 0.3) < 0.02
    assert np.abs(np.bincount(quarters.flat) / quarters.size - 0.25).max() < 0.02
    assert abs(np.corrcoef(upside.flat, quarters.flat)[0, 1]) < 0.04
    assert abs(np.corrcoef(quarters.T)[0, 1]) < 0.05


# warp


@pytest.mark.parametrize("files", [True, False], ids=["files", "arrays"])
@pytest.mark.parametrize("step", [{name: value} for name, value in ALL.items()] + [ALL, {"degrees": 180.0}], ids=str)
def test_pixels_come_from_where_the_warp_says(engine, step, files):
    high, wide = 90, 120
    crop = Crop(32, count=2, scale=(0.1, 1.0), **step)
    source = (Listed if files else lambda x: Arrays(np.stack(x)))([ramps(high, wide)] * 6)
    source.range = (0.0, 1.0)
    views = ImageViews(replace(plain(32, 2), range=(0.0, 1.0)), {"x": crop}, output="float32")
    got = views.fetch(source, np.arange(6), 0, 0).batch["x"].numpy() * np.array([high, wide])[:, None, None]
    _, warped = drawn(crop, high, wide, 6)
    for row, view in np.ndindex(6, 2):
        places = places_of(crop, warped, row, view)
        for place, extent, seen in zip(places, (high, wide), got[row, view], strict=True):
            reflected = place % (2 * extent)  # a place beyond the edge shows the one as far on this side of it
            reflected = np.minimum(reflected, 2 * extent - reflected)
            clear = np.abs(place - reflected).max() < 1e-9
            off = np.abs(seen - reflected)  # beside an edge half a pixel of the view and what resizing blurs
            inner = clear and reflected.min() > 8 and reflected.max() < extent - 8
            assert off.max() < (0.1 if inner else 3.0)
            assert np.median(off) < 0.1


def test_rotation_and_shear_are_torchvisions():
    image = smooth(65, 65)
    for step in ({"degrees": 30.0}, {"shear": 20.0}):
        crop = Crop(65, **step)
        got = fetch(crop, Arrays(image[None]))[0, 0]
        matrix = drawn(crop, 65, 65, 1)[1].matrix[0, 0]
        angle, shear = np.degrees(np.arctan2(matrix[0, 1], matrix[0, 0])), np.degrees(np.arctan(matrix[1, 0]))
        angle, shear = (angle, 0.0) if "degrees" in step else (0.0, shear)
        x = torch.from_numpy(image).permute(2, 0, 1).float() / 255
        wanted = F.affine(x, -angle, [0, 0], 1.0, [shear, 0.0], F.InterpolationMode.BILINEAR).permute(1, 2, 0).numpy()
        middle = slice(20, 45)
        assert np.abs(got[middle, middle] - wanted[middle, middle]).mean() < 1e-5
        assert abs(angle) > 3 or abs(shear) > 3


def test_what_is_drawn_is_uniform_and_independent():
    crop = Crop(32, degrees=30.0, translate=0.2)
    _, warped = drawn(crop, 32, 32, 4000)
    angle = np.degrees(np.arctan2(-warped.matrix[:, 0, 0, 1], warped.matrix[:, 0, 0, 0]))
    moved = warped.matrix[:, 0] @ [15.5, 15.5, 1] - 16
    for values, most in ((angle, 30), (moved[:, 0], 6.4), (moved[:, 1], 6.4)):
        assert ks_2samp(values, np.random.default_rng(0).uniform(-most, most, 4000)).pvalue > TINY
    assert np.abs(np.corrcoef(np.stack([angle, *moved.T])) - np.eye(3)).max() < 0.06
    lean = np.degrees(np.arctan(drawn(Crop(32, shear=10.0), 32, 32, 4000)[1].matrix[:, 0, 1, 0]))
    assert ks_2samp(lean, np.random.default_rng(0).uniform(-10, 10, 4000)).pvalue > TINY


def test_a_warp_of_nothing_is_the_crop(engine):
    blurred = F.resize(
        torch.from_numpy(np.stack([smooth(8, 10, seed=i) for i in range(4)])).permute(0, 3, 1, 2), [80, 100]
    )
    source = Arrays(blurred.permute(0, 2, 3, 1).numpy())
    crop = Crop(48, count=2, scale=(0.2, 1.0))
    assert np.array_equal(fetch(replace(crop, degrees=0.0), source), fetch(crop, source))
    assert np.abs(fetch(replace(crop, translate=1e-9), source) - fetch(crop, source)).mean() < 0.006


def test_no_corner_is_black_but_with_pad(engine):
    source = Arrays(np.full((8, 20, 30, 3), 255, np.uint8))
    for step in ({}, {"scale": (0.5, 1.0)}):
        assert fetch(Crop(16, degrees=180.0, translate=1.0, **step), source).min() > 0.999
    padded = fetch(Crop(16, degrees=45.0, pad=4), source)
    assert padded[:, 0, [0, 0, -1, -1], [0, -1, 0, -1]].min() == 0
    assert padded[:, 0, 8, 8].min() > 0.999


def test_elastic_displacement_is_smooth_and_as_large_as_said():
    size, crop = 64, Crop(64, elastic=4.0)
    moved = np.stack([
        places_of(crop, drawn(crop, size, size, 60)[1], row, 0) - np.mgrid[:size, :size] - 0.5 for row in range(60)
    ])  # fmt: skip
    assert abs(moved.std() / 4.0 - 1) < 0.1
    assert np.abs(moved.std((0, 1)) / 4.0 - 1).max() < 0.4  # as large in the corners as in the middle
    steps = np.concatenate([np.diff(moved[:, 0], axis=1).ravel(), np.diff(moved[:, 1], axis=2).ravel()])
    assert (steps > -1).mean() > 0.999  # 4 is the most that is allowed: it hardly folds anything
    assert abs(np.corrcoef(moved[:, 0].ravel(), moved[:, 1].ravel())[0, 1]) < 0.1


# noise


@pytest.mark.parametrize("output", ["uint8", "float32"])
def test_noise_is_normal_and_of_the_std_that_was_drawn(engine, output):
    crop = Crop(64, count=2, noise=0.1)
    x = fetch(crop, Arrays(np.full((6, 64, 64, 3), 128, np.uint8)), output=output) / (255 if output == "uint8" else 1)
    std, _ = draw.noise(crop, 0, 0, np.arange(6), 0)
    found = x - 128 / 255
    assert np.abs(found.mean((2, 3, 4))).max() < 0.004
    assert np.abs(found.std((2, 3, 4)) / std - 1).max() < 0.05
    if output == "float32":
        scaled = found / std[..., None, None, None]
        assert normaltest(scaled.ravel()[::7]).pvalue > TINY
        assert 3.3 < np.abs(scaled).max() < 3.8
        one = scaled[0, 0, ..., 0]
        parts = [*scaled[0, 0].transpose(2, 0, 1), scaled[0, 1, ..., 0], scaled[1, 0, ..., 0]]
        parts += [np.roll(one, 1, 0), np.roll(one, 1, 1)]  # other channels, views, images, and pixels beside it
        assert np.abs(np.corrcoef([part.ravel() for part in parts]) - np.eye(7)).max() < 0.07


def test_noise_stays_in_the_range_and_its_std_is_uniform():
    bright = fetch(Crop(16, noise=1.0), Arrays(np.full((4, 16, 16, 1), 250, np.uint8)), 1)
    assert bright.max() == 1
    assert bright.min() >= 0
    std, key = draw.noise(Crop(8, count=2, noise=0.2), 3, 1, np.arange(4000), 0)
    assert ks_2samp(std.ravel(), np.random.default_rng(0).uniform(0, 0.2, 8000)).pvalue > TINY
    assert len(np.unique(key)) == key.size
    values = draw.quantiles()
    assert abs(values.mean()) < 1e-6
    assert abs(values.std() - 1) < 1e-6


# every path


COLOURED = Crop(24, count=2, scale=(0.2, 1.0), flip=0.5, jitter=(0.4, 0.4, 0.4, 0.1), blur=0.5)
CASES = [
    {"x": replace(COLOURED, **ALL, **TURNED, noise=0.1)},
    {"x": Crop(32, pad=4, flip=0.5, degrees=30.0, noise=0.05), "local": Crop(16, scale=(0.1, 0.4), elastic=1.0)},
    {"x": Crop(21, scale=(0.3, 1), bicubic=True, degrees=180.0, translate=0.5, vertical_flip=0.5)},
]


@pytest.mark.parametrize("channels", [1, 3, 5, 64])
@pytest.mark.parametrize("groups", CASES)
def test_fallback_equals_kernel(groups, channels, monkeypatch):
    arrays = np.stack([smooth(40, 52, channels, seed=i) for i in range(4)])
    for source in (Arrays(arrays), Listed(list(arrays)), Listed([x.astype(np.uint16) * 257 for x in arrays])):
        views = ImageViews(plain(48, channels), groups, output="float32")
        monkeypatch.undo()
        kernel = views.fetch(source, np.arange(4), 5, 0).batch
        monkeypatch.setattr(image_views, "engine", reference)
        torch_alone = views.fetch(source, np.arange(4), 5, 0).batch
        for key in groups:
            assert (kernel[key] - torch_alone[key]).abs().max() < 1e-4


@pytest.mark.parametrize("groups", CASES)
def test_device_mode_and_uint8_equal_the_float_kernel(groups):
    source = Listed([smooth(80, 100, seed=i) for i in range(4)])
    views = ImageViews(ImageSpec.of(32, 3), groups)
    wanted = views.for_device("cpu").fetch(source, np.arange(4), 0, 0).batch
    for output in ("uint8", "crops"):
        fetched = replace(views, output=output).fetch(source, np.arange(4), 0, 0).batch
        got = views.finish(fetched)
        assert got.keys() == wanted.keys()
        for key in groups:
            assert fetched[key].dtype == torch.uint8
            assert (got[key] - wanted[key]).abs().mean() <= 0.006 / 0.225


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (3, 300), (700, 900)], ids=str)
@pytest.mark.parametrize("pad", [0, 8])
def test_images_of_any_shape_are_warped_alike_by_both_engines(shape, pad, monkeypatch):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    place = {"pad": 8} if pad else {"scale": (0.01, 1.0)}
    crop = Crop(16, count=4, degrees=180.0, shear=60.0, translate=1.0, elastic=1.0, **place)
    kernel = fetch(crop, Listed([image] * 4))
    monkeypatch.setattr(image_views, "engine", reference)
    assert np.abs(kernel - fetch(crop, Listed([image] * 4))).max() < 1e-4
    assert kernel.max() <= 1 + 1e-6
    assert kernel.min() >= 0


def test_sixteen_bits_keep_what_eight_lose():
    dim = (smooth(40, 40).astype(np.uint16) * 4)[None]
    got = fetch(Crop(32, degrees=5.0), Listed(list(dim)))
    assert got.max() < 0.016
    assert len(np.unique(got)) > 1000


def test_views_are_functions_of_seed_epoch_and_index():
    crop = CASES[0]["x"]
    source = Arrays(np.stack([smooth(40, 52)] * 8))
    whole = fetch(crop, source, seed=3, epoch=2)
    assert np.array_equal(fetch(crop, source, seed=3, epoch=2, indices=np.array([6, 1])), whole[[6, 1]])
    for other in ({"seed": 4, "epoch": 2}, {"seed": 3, "epoch": 1}):
        assert not np.isclose(fetch(crop, source, **other), whole).all((1, 2, 3, 4)).any()
    assert len({view.tobytes() for image in whole for view in image}) == 16


def test_a_group_draws_the_same_beside_another_that_is_warped():
    """A group's draws come from its place among the views, not from what others draw."""
    source = Arrays(np.stack([smooth(40, 52, seed=i) for i in range(4)]))
    last = Crop(16, scale=(0.2, 1.0), flip=0.5)
    before = {"a": Crop(16, count=2, scale=(0.3, 1.0)), "b": last}
    after = {"a": Crop(16, count=2, scale=(0.3, 1.0), **ALL, **TURNED, noise=0.2), "b": last}
    x, y = (ImageViews(plain(16), groups).fetch(source, np.arange(4), 0, 0).batch["b"] for groups in (before, after))
    assert torch.equal(x, y)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"degrees": 181.0}, "degrees of a view of 32 pixels is from 0 to 180, not 181"),
        ({"degrees": -1.0}, "degrees"),
        ({"shear": 61.0}, "shear"),
        ({"translate": 1.1}, "translate"),
        ({"elastic": 2.5}, "elastic of a view of 32 pixels is from 0 to 2, not 2.5"),
        ({"noise": 1.5}, "noise"),
        ({"vertical_flip": 2.0}, "vertical_flip"),
        ({"flip": float("nan")}, "flip"),
        ({"quarter_turns": 0.5}, "quarter_turns is True or False"),
        ({"grid": 2, "count": 4, "quarter_turns": True}, "patches of a grid"),
        ({"grid": 2, "count": 4, "degrees": 3.0}, "patches of a grid"),
    ],
)
def test_nonsense_is_refused_in_one_line(wrong, told):
    with pytest.raises(UserError, match=told) as caught:
        Crop(32, **wrong)
    assert "\n" not in str(caught.value)
