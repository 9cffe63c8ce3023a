"""The engine against torchvision with the same parameters, the two engines and the devices against each other."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as F

from selfsup.data.image import Arrays
from selfsup.source import Broken, Labels
from selfsup.spec import ImageSpec
from selfsup.views.image import PRESETS, Crop, ImageViews, centre, draw, patches, preset, reference
from selfsup.views.image import views as image_views
from support import views_chain

LIMIT = 0.006


class Listed:
    """Images of different sizes, as files give them."""

    name, labels = "listed", None

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def conform(self, spec):
        return self

    def read(self, index):
        if self.images[index] is None:
            raise Broken("damaged")
        return self.images[index]

    def path(self, index):
        return str(index)


def smooth(high, wide, channels=3, seed=0):
    """Return an image with large and small structure (H, W, C) uint8."""
    rng = np.random.default_rng(seed)
    x = sum(
        torch.nn.functional.interpolate(
            torch.from_numpy(rng.normal(size=(1, channels, n, n))), (high, wide), mode="bicubic"
        )
        for n in (3, 9, 40)
    )
    return (128 + 40 * x[0]).clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()


def plain(size, channels=3):
    return ImageSpec(size, channels, (0.0,) * channels, (1.0,) * channels)


@pytest.fixture
def without_numba(monkeypatch):
    monkeypatch.setattr(image_views, "engine", reference)


BASE = Crop(96, count=2, scale=(0.2, 1.0), flip=0.5)
STEPS = {
    "crop": BASE,
    "bicubic": replace(BASE, bicubic=True),
    "jitter": replace(BASE, jitter=(0.8, 0.8, 0.8, 0.2), jitter_p=1.0),
    "brightness": replace(BASE, jitter=(0.8, 0.0, 0.0, 0.0), jitter_p=1.0),
    "contrast": replace(BASE, jitter=(0.0, 0.8, 0.0, 0.0), jitter_p=1.0),
    "saturation": replace(BASE, jitter=(0.0, 0.0, 0.8, 0.0), jitter_p=1.0),
    "hue": replace(BASE, jitter=(0.0, 0.0, 0.0, 0.5), jitter_p=1.0),
    "gray": replace(BASE, gray=1.0),
    "blur": replace(BASE, blur=1.0),
    "solarize": replace(BASE, solarize=1.0),
    "chain": replace(BASE, jitter=(0.8, 0.8, 0.8, 0.2), gray=0.2, blur=0.5, solarize=0.2),
}


@pytest.mark.parametrize("files", [True, False], ids=["files", "arrays"])
@pytest.mark.parametrize("name", STEPS)
def test_every_step_and_the_chain_are_torchvisions(name, files):
    crop, indices = STEPS[name], np.arange(12)
    images = [smooth(150, 200 if not files else 180 + 5 * i, seed=i) for i in indices]
    source = Listed(images) if files else Arrays(np.stack(images))
    got = ImageViews(plain(96), {"x": crop}, output="float32").fetch(source, indices, 3, 1).batch["x"]
    u = draw.draws(3, 1, indices, 2)
    where = draw.places(crop, np.array([p.shape[:2] for p in images]), u, 3, 1, indices, 0)
    color = draw.color_params(crop, u)
    for n in indices:
        for v in range(2):
            box, flip = where.box[n, v], where.flip[n, v]
            wanted = views_chain.view(images[n], box, flip, 96, color[n, v], crop.bicubic)
            assert (got[n, v] - wanted).abs().mean() <= LIMIT


@pytest.mark.parametrize(("high", "wide"), [(375, 500), (500, 333), (100, 90)])
@pytest.mark.parametrize("size", [224, 96, 32])
def test_centre_is_what_evaluation_does_by_torchvision(high, wide, size):
    image = smooth(high, wide)
    crop = centre(size)
    got = (
        ImageViews(plain(size), {"x": crop}, output="float32").fetch(Listed([image]), np.zeros(1, int), 0, 0).batch["x"]
    )
    x = torch.from_numpy(image).permute(2, 0, 1)
    resized = F.resize(x, [int(size / 0.875) if size > 64 else size], antialias=True)
    assert (got[0] - F.center_crop(resized, [size, size]) / 255).abs().mean() <= LIMIT


def test_shift_over_black_moves_whole_pixels():
    image = smooth(32, 32)
    crop = Crop(32, pad=4)
    got = ImageViews(plain(32), {"x": crop}).fetch(Arrays(np.stack([image] * 64)), np.arange(64), 0, 0).batch["x"]
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    known = {padded[t : t + 32, left : left + 32].tobytes() for t in range(9) for left in range(9)}
    found = {x.permute(1, 2, 0).contiguous().numpy().tobytes() for x in got}
    assert found <= known
    assert len(found) > 30


@pytest.mark.parametrize("step", [{}, {"degrees": 1e-9}], ids=["crop", "warp"])
def test_shift_over_black_shows_as_much_of_it_on_every_side_of_any_image(step):
    white = [np.full((*shape, 3), 255, np.uint8) for shape in ((40, 60), (60, 40), (33, 300), (21, 20), (48, 48))]
    views = ImageViews(plain(20), {"x": Crop(20, count=200, pad=4, **step)})
    dark = views.fetch(Listed(white), np.arange(5), 0, 0).batch["x"].float().mean(2) < 64  # (5, 200, 20, 20)
    lines = [dark.all(3), dark.all(3).flip(2), dark.all(2), dark.all(2).flip(2)]  # top, bottom, left, right
    depth = torch.stack([line.cummin(2).values.sum(2) for line in lines], 1)  # (5, 4, 200)
    spread = torch.stack([torch.bincount(x, minlength=5) for x in depth.flatten(0, 1)]).view(5, 4, 5)
    assert (spread > 5).all(), "a rim of each width, on each side of each image"
    assert ((spread[..., 0] > 80) & (spread[..., 0] < 140)).all(), "5 of 9 shifts show no black on a side"


def test_patches_lie_in_their_cells():
    u = draw.draws(0, 0, np.arange(200), 9)
    box = draw.places(patches(16, 3, 4), np.full((200, 2), 60), u, 0, 0, np.arange(200), 0).box
    row, column = np.divmod(np.arange(9), 3)
    assert (box[..., 2:] == 16).all()
    assert (box[..., 0] >= 20 * row).all()
    assert (box[..., 0] + 16 <= 20 * (row + 1)).all()
    assert (box[..., 1] >= 20 * column).all()
    assert len(np.unique(box[:, 0, 0])) == 5


CASES = [preset(name, 48) for name in PRESETS] + [
    {"x": Crop(32, pad=4, flip=0.5)},
    {"x": centre(96)},
    {"x": patches(16, 3, 4, scale=(0.3, 0.9))},
    {"x": Crop(21, scale=(0.1, 1), jitter=(0.4, 0.4, 0.4, 0.1), blur=1.0, sigma=(2.5, 4.0))},
]


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("groups", CASES)
def test_fallback_equals_kernel(groups, channels, monkeypatch):
    arrays = np.stack([smooth(40, 52, channels, seed=i) for i in range(6)])
    for source in (Arrays(arrays), Listed(list(arrays))):
        views = ImageViews(plain(48, channels), groups, output="float32")
        monkeypatch.undo()
        kernel = views.fetch(source, np.arange(6), 5, 0).batch
        monkeypatch.setattr(image_views, "engine", reference)
        torch_alone = views.fetch(source, np.arange(6), 5, 0).batch
        for key in groups:
            assert (kernel[key] - torch_alone[key]).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["simclr", "byol", "dino"])
def test_device_mode_and_uint8_equal_the_float_kernel(name):
    source = Listed([smooth(150, 200, seed=i) for i in range(6)])
    views = ImageViews(ImageSpec.of(96, 3), preset(name, 96))
    wanted = views.for_device("cpu").fetch(source, np.arange(6), 0, 0).batch
    for output in ("uint8", "crops"):
        fetched = replace(views, output=output).fetch(source, np.arange(6), 0, 0).batch
        got = views.finish(fetched)
        for key in views.groups:
            assert fetched[key].dtype == torch.uint8
            assert got[key].stride() == wanted[key].stride()
            assert (got[key] - wanted[key]).abs().mean() <= LIMIT / 0.225


def test_float_stays_as_it_is_in_finish():
    views = ImageViews(ImageSpec.of(16, 3), preset("simclr", 16), output="float32")
    batch = views.fetch(Arrays(np.stack([smooth(20, 20)])), np.zeros(1, int), 0, 0).batch
    assert views.finish(batch)["x"] is batch["x"]


def test_sixteen_bits_keep_what_eight_lose():
    dim = (smooth(40, 40).astype(np.uint16) * 4)[None]
    views = ImageViews(plain(32), {"x": Crop(32)}, output="float32")
    got = views.fetch(Listed(list(dim)), np.zeros(1, int), 0, 0).batch["x"]
    assert got.max() < 0.016
    assert len(got.unique()) > 200


def test_labels_index_and_substitutes():
    images = [smooth(20, 20, seed=i) for i in range(8)]
    source = Listed([None if i in (2, 5) else p for i, p in enumerate(images)])
    source.labels = Labels(np.arange(8), tuple("abcdefgh"))
    views = ImageViews(plain(16), {"x": Crop(16, scale=(0.5, 1))}, labels=True)
    batch, skipped = views.fetch(source, np.arange(8), 0, 0)
    again = views.fetch(source, np.array([5, 2]), 0, 0).batch
    assert {index for index, _ in skipped} == {2, 5}
    assert batch["index"].tolist() == batch["y"].tolist()
    assert not {2, 5} & set(batch["index"].tolist())
    assert again["index"].tolist() == [batch["index"][5], batch["index"][2]]
    assert torch.equal(again["x"][0], batch["x"][5])
    source.images = [None] * 8
    with pytest.raises(Broken, match="64 samples in a row"):
        views.fetch(source, np.arange(2), 0, 0)
