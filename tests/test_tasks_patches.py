"""Tasks on patches: what makes their labels, and what keeps cheap cues out."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from selfsup.encoders import build_encoder
from selfsup.errors import UserError
from selfsup.nn.image import patches
from selfsup.nn.image.recolor import new_colours
from selfsup.spec import ImageSpec
from selfsup.tasks import find_task
from selfsup.tasks.image.jigsaw_permutations import OPTIMAL, greedy, permutation_set
from selfsup.tasks.image.rotation import all_rotations

SPEC = ImageSpec.of(32, 3)


def make(name: str, spec: ImageSpec = SPEC, encoder: str = "convnet", **options):
    torch.manual_seed(0)
    return find_task(name)(build_encoder(encoder, spec), **options)


def batch_for(task, count: int = 16, channels: int = 3):
    """Images whose channels tell the row, the column, and their sum."""
    size = next(iter(task.views(SPEC).groups.values())).size
    line = torch.linspace(-1, 1, size)
    x = torch.stack([line[:, None].expand(size, size), line.expand(size, size), line[:, None] + line])[:channels]
    return {"x": x.repeat(count, 1, 1, 1), "noise": torch.arange(count) * 7919, "index": torch.arange(count)}


# Permutations


def distances(perms: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many places of each two permutations differ."""
    first, second = np.triu_indices(len(perms), 1)
    return (perms[first] != perms[second]).sum(1)


@pytest.mark.parametrize(("name", "size", "least"), [("agl9", 72, 8), ("pgl8", 504, 7), ("pgammal8", 1512, 6)])
def test_optimal_sets_have_their_size_and_least_distance(name: str, size: int, least: int) -> None:
    perms = OPTIMAL[name]()
    assert perms.shape == (size, 9)
    assert (np.sort(perms, 1) == np.arange(9)).all()
    assert distances(perms).min() == least
    assert size == math.factorial(9) // math.factorial(least - 1) or name == "pgammal8"


@pytest.mark.parametrize(("count", "least"), [(100, 6), (701, 5), (1000, 5)])
def test_greedy_sets_are_far_apart(count: int, least: int) -> None:
    perms = greedy(count)
    assert perms.shape == (count, 9)
    assert (np.sort(perms, 1) == np.arange(9)).all()
    assert distances(perms).mean() >= 8
    assert distances(perms).min() >= least
    assert greedy(count) is perms


@pytest.mark.parametrize("name", ["1", "25", "-3", "agl9", "some"])
def test_sets_that_there_are_not_give_one_line(name: str) -> None:
    with pytest.raises(UserError, match="permutations"):
        permutation_set(name, 4)
    assert len(permutation_set("24", 4)) == 24


# Patches


def test_patches_are_cut_at_their_corners_channel_by_channel() -> None:
    x = torch.arange(2 * 3 * 8 * 8).view(2, 3, 8, 8)
    top, left = torch.tensor([[0, 5], [1, 2]]), torch.tensor([[2, 3], [0, 1]])
    found = patches.cut(x, top, left, 3)
    assert torch.equal(found[0, 1], x[0, :, 5:8, 3:6])
    assert torch.equal(found[1, 0], x[1, :, 1:4, 0:3])
    apart = left[..., None] + torch.tensor([0, 1, 2])
    assert torch.equal(patches.cut(x, top, apart, 3)[0, 0, 2], x[0, 2, 0:3, 4:7])


def test_standardised_patches_have_no_mean_and_constant_ones_are_zero() -> None:
    x = torch.rand(4, 3, 8, 8) * 5 + 2
    x[0, 0] = 0.7
    y = patches.standardised(x)
    torch.testing.assert_close(y.mean((2, 3)), torch.zeros(4, 3), atol=1e-3, rtol=0)
    assert y[0, 0].abs().max() < 1e-3
    assert y[1].std() == pytest.approx(1, abs=0.02)


def test_one_colour_stands_in_its_channel_among_noise() -> None:
    x = torch.randn(5, 3, 12, 12)
    kept, corner = torch.arange(10).view(5, 2) % 3, torch.randint(0, 4, (5, 2))
    patch = patches.cut(x, corner, corner, 8, kept)
    whole = patches.cut(x, corner, corner, 8)
    assert torch.equal(patch, whole.gather(2, kept[..., None, None, None].expand(-1, -1, 1, 8, 8)))
    noise = torch.randn(5, 2, 2, 8, 8)
    found = patches.one_colour(patch, kept, noise)
    assert torch.equal(found[0, 1, 1], whole[0, 1, 1])
    deviation = patch.std((3, 4), keepdim=True) / 100
    others = [[found[i, j, [c for c in range(3) if c != kept[i, j]]] for j in range(2)] for i in range(5)]
    torch.testing.assert_close(torch.stack([torch.stack(row) for row in others]), noise * deviation)


def test_resizing_matrices_are_those_of_interpolate() -> None:
    x = torch.rand(2, 3, 12, 12)
    a = patches.resizer(12, 5)
    wanted = torch.nn.functional.interpolate(x, size=(5, 5), mode="bilinear", antialias=True)
    torch.testing.assert_close(a @ x @ a.mT, wanted)
    for before, after in ((12, 5), (16, 8), (6, 9)):
        line = torch.rand(before, before)
        with_pillow = Image.fromarray(line.numpy()).resize((after, after), Image.Resampling.LANCZOS)
        a = patches.resizer(before, after, "lanczos")
        torch.testing.assert_close(a @ line @ a.mT, torch.from_numpy(np.array(with_pillow)), atol=1e-5, rtol=0)
    kept = patches.resamplers(12, 6)
    assert kept.shape == (7, 12, 12)
    torch.testing.assert_close(kept.sum(2), torch.ones(7, 12))
    assert torch.equal(kept[-1], torch.eye(12))


def test_encoders_of_one_size_get_enlarged_patches() -> None:
    vit = build_encoder("vit_tiny_patch16_224", SPEC)
    assert patches.side_for(vit, 8) == 8, "timm's transformers are built to take other sizes"
    assert patches.side_for(build_encoder("convnet", SPEC), 8) == 8
    only_its_own = build_encoder("mlp", SPEC)
    assert patches.side_for(only_its_own, 8) == 32
    assert patches.encode(only_its_own, torch.zeros(2, 3, 3, 8, 8), 32).shape == (2, 3, only_its_own.dim)
    assert patches.encode(vit, torch.zeros(2, 3, 3, 8, 8), 32).shape == (2, 3, vit.dim)


# Relative position


def test_the_neighbour_lies_where_its_label_says() -> None:
    task = make("relative_position", normalize=False, drop=False, resample=0.0)
    pairs, labels = task.pairs(batch_for(task, 64))
    assert len(set(labels.tolist())) == 8
    for (middle, neighbour), label in zip(pairs.mean((3, 4)), labels.tolist(), strict=True):
        cell = label + (label >= 4)
        step = torch.sign(((neighbour - middle)[:2] / 0.4).round())  # further apart than jitter alone
        assert step.tolist() == [cell // 3 - 1, cell % 3 - 1]


def test_resampled_patches_differ_and_the_smallest_have_a_tenth_of_the_pixels_of_a_side() -> None:
    never, always = (make("relative_position", ImageSpec.of(160, 3), resample=r, normalize=False) for r in (0.0, 1.0))
    assert never.patch_size == 40
    batch = batch_for(never, 64)
    batch["x"] = torch.randn(batch["x"].shape, generator=torch.Generator().manual_seed(0))
    (sharp, _), (changed, _) = never.pairs(batch), always.pairs(batch)
    assert (sharp - changed).abs().amax((2, 3, 4)).min() > 1e-3, "each patch is changed"
    ranks = torch.linalg.matrix_rank(always.operators, rtol=1e-4)
    assert (ranks.min(), ranks.max()) == (4, 40)


def test_options_take_effect_and_patches_that_do_not_fit_give_one_line() -> None:
    task = make("relative_position", gap=0.0, jitter=0.0)
    assert task.extent == 3 * task.patch_size
    with pytest.raises(UserError, match="--patch-size"):
        make("relative_position", patch_size=10)
    assert make("relative_position", spec=ImageSpec.of(8, 1)).size > 24  # small images are enlarged


# Jigsaw


@pytest.mark.parametrize("grid", [2, 3])
def test_the_puzzle_is_solved_by_its_permutation(grid: int) -> None:
    task = make("jigsaw", grid=grid, permutations="20", normalize=False, channel_jitter=0.0)
    batch = batch_for(task)
    tiles, labels = task.puzzles(batch)
    assert len(set(labels.tolist())) > 4
    for mixed, label in zip(tiles, labels, strict=True):
        place = mixed[task.orders[label].argsort()].mean((2, 3)).view(grid, grid, 3)
        assert (place[1:, :, 0] > place[:-1, :, 0]).all()
        assert (place[:, 1:, 1] > place[:, :-1, 1]).all()


def test_tiles_are_jittered_each_on_its_own_and_their_channels_too() -> None:
    task = make("jigsaw", normalize=False)
    tiles, labels = task.puzzles(batch_for(task))
    corner = tiles[0][task.orders[labels[0]].argsort()][:, 0, 0, 0].view(3, 3)
    assert len(set(corner[0].tolist())) > 1  # without jitter the tiles of a row begin in the same row
    tops, sums = tiles[:, :, :2, 0, 0].sum(2), tiles[:, :, 2, 0, 0]
    assert (tops - sums).abs().max() > 0.01  # the third channel is the sum of the others where none is moved
    still, _ = make("jigsaw", normalize=False, channel_jitter=0.0).puzzles(batch_for(task))
    torch.testing.assert_close(still[:, :, :2].sum(2), still[:, :, 2])


# Exemplar


def test_seeds_lie_where_the_gradient_is_and_stay_there() -> None:
    task = make("exemplar", patch_size=8)
    batch = batch_for(task, 64)
    batch["x"] = torch.zeros(64, 3, 32, 32)
    batch["x"][:, :, 20:24, 4:8] = 1  # the only edges
    seeds = task.seeds(batch)
    corners = ((seeds + 1) * 32 - 8) / 2
    assert (corners[:, 0] < 9).all()
    assert (corners[:, 1] > 11).all()
    assert len(set(map(tuple, corners.tolist()))) > 5
    assert torch.equal(seeds, task.seeds({**batch, "noise": batch["noise"] + 1}))


def test_transformations_keep_the_patch_where_they_are_off() -> None:
    task = make("exemplar", patch_size=8, shift=0.0, zoom=1.0, degrees=0.0, colour=False)
    batch = batch_for(task)
    left, top = ((task.seeds(batch) + 1) * 32 - 8).div(2).round().long().T[..., None]
    torch.testing.assert_close(
        task.samples_of(batch, 1), patches.cut(batch["x"], top, left, 8)[:, 0], atol=1e-4, rtol=0
    )


def test_colours_change_within_their_range_and_gray_stays_gray() -> None:
    x, u = torch.rand(8, 3, 6, 6), torch.rand(8, 12) * 2 - 1
    u[:, 3:9] = 0
    u[:, 4] = u[:, 7] = torch.log2(torch.tensor(1 / 0.99)) * 2
    u[:, :3] = u[:, 9] = 0
    torch.testing.assert_close(new_colours(x, u), x, atol=1e-4, rtol=1e-4)
    changed = new_colours(x, torch.rand(8, 12) * 2 - 1)
    assert 0 <= changed.min() < changed.max() <= 1
    assert (changed - x).abs().mean() > 0.05
    gray = new_colours(x[:, :1].expand(-1, 3, -1, -1), torch.rand(8, 12) * 2 - 1)
    torch.testing.assert_close(gray[:, 0], gray[:, 2], atol=1e-4, rtol=0)
    assert new_colours(x[:, :1], u).shape == (8, 1, 6, 6)


# Counting


def test_the_tiles_and_the_half_are_the_image() -> None:
    task = make("counting", random_filter=False)
    batch = batch_for(task)
    parts = task.parts(batch)
    assert parts.shape == (16, 5, 3, 16, 16)
    rows = [torch.cat([parts[:, i], parts[:, i + 1]], 3) for i in (1, 3)]
    assert torch.equal(torch.cat(rows, 2), batch["x"])
    torch.testing.assert_close(parts[:, 0].mean((2, 3)), batch["x"].mean((2, 3)), atol=1e-4, rtol=0)


def test_the_loss_of_counting_is_the_margin_for_nothing_and_0_for_distinct_sums() -> None:
    task = make("counting", out_dim=20)
    batch = batch_for(task)
    task.counted = lambda parts: torch.zeros(len(parts), 5, 20)
    assert task.loss(batch).value == task.margin
    own = 8 * torch.eye(20)[:16]  # each image has a thing of its own, two in every tile
    task.counted = lambda parts: torch.cat([own[:, None], own[:, None].expand(-1, 4, -1) / 4], 1)
    assert task.loss(batch).value == 0


@pytest.mark.parametrize("name", ["counting", "exemplar"])
def test_a_single_image_has_a_finite_loss_and_nothing_to_compare(name: str) -> None:
    task = make(name)
    loss = task.loss(batch_for(task, 1))
    loss.value.backward()
    assert loss.chance == 0, "which the loop refuses"
    assert all(value.isfinite() for value in (loss.value, *loss.metrics.values()))
    assert all(p.grad is None or p.grad.isfinite().all() for p in task.parameters())


def test_nothing_that_trains_needs_float64_which_apple_gpus_lack(request: pytest.FixtureRequest) -> None:
    home = request.config.rootpath / "src" / "selfsup"
    for path in [*(home / "tasks").rglob("*.py"), *(home / "nn").rglob("*.py"), home / "losses.py"]:
        assert ".double()" not in path.read_text(), path


# CPC


@pytest.mark.parametrize("version", [1, 2])
def test_a_prediction_sees_no_row_below_its_own(version: int) -> None:
    task = make("cpc", version=version, grid=5, prediction_steps=3, out_dim=16, num_layers=3).eval()
    z = torch.randn(2, 25, 16)
    guesses, targets = task.predictions(z)
    changed = z.clone()
    changed[:, 15:] += 1  # the last two rows
    moved = (task.predictions(changed)[0] - guesses).abs().amax(1) > 0
    down = 2 * (3 + 2) * 5  # of the direction down: k = 2 from 3 rows, k = 3 from 2
    assert not moved[:down].any()
    assert bool(moved[down:].any()) == (version == 2)
    assert targets[:15].tolist() == list(range(10, 25))  # two rows below, in the same image
    assert (targets[:down] // 25 == torch.tensor([0] * 15 + [1] * 15 + [0] * 10 + [1] * 10)).all()


def test_patches_two_rows_apart_share_no_pixel() -> None:
    task = make("cpc")
    batch = batch_for(task)
    batch["x"] = torch.arange(16 * 3 * task.size**2).view(16, 3, task.size, task.size).float()
    task.drop_ratio, task.normalize = 0.0, False
    found = task.patches(batch)[0].unflatten(0, (task.grid, task.grid))
    for row in range(task.grid - 2):
        assert not set(found[row].flatten().tolist()) & set(found[row + 2].flatten().tolist())


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [("cpc", {"prediction_steps": 7}, "--prediction-steps"), ("jigsaw", {"grid": 4}, "at most 9 tiles")],
)
def test_options_that_cannot_be_give_one_line(name: str, options: dict, line: str) -> None:
    with pytest.raises(UserError, match=line):
        make(name, **options)


# Rotation


def test_rotations_go_anticlockwise_in_equal_steps() -> None:
    x = torch.zeros(1, 1, 33, 33)
    x[0, 0, 14:19, 27:32] = 1  # on the right
    for count in (2, 4, 8):
        rotated, label = all_rotations(x, count)
        assert label.tolist() == list(range(count))
        line = torch.arange(33.0) - 16
        mass = rotated[:, 0].clamp(min=0)
        angle = torch.atan2(-(mass.sum(2) * line).sum(1), (mass.sum(1) * line).sum(1)).rad2deg()
        wanted = torch.arange(count) * 360 / count + (22.5 if count == 8 else 0)
        assert ((angle - wanted + 180) % 360 - 180).abs().max() < 1


def test_eight_rotations_are_all_resampled_alike() -> None:
    """The cheap cue: how much of the finest detail of noise is left. Pixels that nothing resampled keep all of it."""
    rotated, label = all_rotations(torch.randn(64, 1, 32, 32, generator=torch.Generator().manual_seed(0)), 8, 1.0)
    middle = rotated[..., 8:24, 8:24]
    energy = (middle.diff(dim=2).square().mean((1, 2, 3)), middle.diff(dim=3).square().mean((1, 2, 3)))
    diagonal = (middle[..., 1:, 1:] - middle[..., :-1, :-1]).square().mean((1, 2, 3))
    for cue in (*energy, diagonal):
        means = torch.stack([cue[label == k].mean() for k in range(8)])
        noise = cue.std() / 64**0.5
        assert (means - means.mean()).abs().max() < 4 * noise
    with pytest.raises(UserError, match="--num-rotations"):
        make("rotation", num_rotations=6)
