"""Tasks that mask patches, and those of a student and an EMA teacher: against their formulas, written another way."""

import math

import pytest
import torch
from torch.nn import functional as F

from selfsup.encoders import build_encoder
from selfsup.errors import UserError
from selfsup.losses import cross_view_entropy, gram_distance
from selfsup.nn import noise
from selfsup.nn.image.masks import (
    blocks,
    covered_first,
    lowest,
    mask_of,
    one_of_two_masked,
    only,
    patchify,
    places_of,
    rectangles,
    take,
    unpatchify,
)
from selfsup.nn.image.self_distillation import half_masked, masked_entropy
from selfsup.spec import ImageSpec
from selfsup.task import Task
from selfsup.tasks import find_task
from selfsup.tasks.image.mae import MAE, decoder_width
from selfsup.views.image import multi_crop

SPEC = ImageSpec.of(32, 3)
KEY = torch.arange(1, 41) * 7919
HIDING = ("mae", "simmim", "ijepa", "data2vec", "ibot", "dinov2")


def make(name: str, **options: object) -> Task:
    torch.manual_seed(0)
    return find_task(name)(build_encoder("vit-mini", SPEC), **options)


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"x": torch.randn(4, 3, 32, 32, generator=generator), "noise": KEY[:4]}


@pytest.fixture
def crops() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 2, 3, 32, 32, generator=generator)
    return {"x": x, "local": torch.randn(4, 3, 3, 16, 16, generator=generator), "noise": KEY[:4]}


def test_patches_are_cut_in_reading_order_and_put_back() -> None:
    x = torch.randn(2, 3, 12, 12)
    patches = patchify(x, 4)
    assert patches.shape == (2, 9, 48)
    torch.testing.assert_close(patches[1, 5].view(4, 4, 3), x[1, :, 4:8, 8:12].permute(1, 2, 0))
    torch.testing.assert_close(unpatchify(patches, 3), x)
    seen = only(x, mask_of(torch.tensor([[5], [0]]), 9))
    assert torch.equal(patchify(seen, 4)[0, 5], patches[0, 5])
    assert seen.ne(0).sum() == 2 * 48


@pytest.mark.parametrize("grid", [7, 8, 14])
def test_blocks_hide_exactly_what_was_asked(grid: int) -> None:
    count = noise.integers(KEY, grid**2 - 1, stream=9) + 1
    mask = blocks(KEY, grid, count)
    assert torch.equal(mask.sum(1), count)
    assert len({tuple(row.tolist()) for row in mask}) > 30
    scattered = lowest(noise.uniform(KEY, grid**2), grid**2 // 4).view(-1, grid, grid)
    together = blocks(KEY, grid, grid**2 // 4).view(-1, grid, grid)
    neighbours = [(m[:, 1:] & m[:, :-1]).sum() + (m[:, :, 1:] & m[:, :, :-1]).sum() for m in (together, scattered)]
    assert neighbours[0] > 1.5 * neighbours[1]


def test_rectangles_lie_within_the_grid_and_come_first() -> None:
    high, wide = torch.full((40, 3), 2), torch.full((40, 3), 4)
    found = rectangles(KEY, high, wide, 7)
    assert torch.equal(found.sum(2), torch.full((40, 3), 8))
    square = found.view(40, 3, 7, 7)
    assert torch.equal(square.any(3).sum(2), high)
    assert torch.equal(square.any(2).sum(2), wide)
    assert square.any(0).any(0).all(), "every patch is reached"
    priority = covered_first(found, KEY)
    assert torch.equal(lowest(priority, 8), found[:, 0])
    assert torch.equal(mask_of(places_of(found[:, 0], 8), 49), found[:, 0])


def test_one_of_two_crops_is_masked() -> None:
    mask = one_of_two_masked(KEY, 8, 0.1, 0.5)
    first, second = mask.any(1).chunk(2)
    assert torch.equal(first, ~second)
    assert 8 < first.sum() < 32
    shares = mask.sum(1)[mask.any(1)] / 64
    assert 0.09 < shares.min() < 0.2
    assert 0.4 < shares.max() < 0.51


def test_masks_are_of_the_sample_alone(batch) -> None:
    for name in ("ijepa", "data2vec"):
        task = make(name)
        whole = task._choose(KEY[:4])
        part = task._choose(KEY[2:3])
        if name == "ijepa":
            assert torch.equal(whole[0][2:3], part[0])
            assert torch.equal(whole[1][2:3], part[1])
        else:
            assert torch.equal(whole.view(4, 4, -1)[2], part)


def test_mae_is_the_naive_error_of_the_masked_patches(batch) -> None:
    task = make("mae")
    predicted, visible, masked = task._predict(batch)
    assert visible.shape == (4, 16)
    assert torch.equal(torch.cat([visible, masked], 1).sort(1).values, torch.arange(64).expand(4, -1))
    errors = []
    for row in range(4):
        for number, place in enumerate(masked[row].tolist()):
            top, left = 4 * (place // 8), 4 * (place % 8)
            cell = batch["x"][row, :, top : top + 4, left : left + 4].permute(1, 2, 0).flatten().double()
            cell = (cell - cell.mean()) / (cell.var() + 1e-6).sqrt()
            errors.append((predicted[row, number].double() - cell).square().mean())
    torch.testing.assert_close(task.loss(batch).value.double(), torch.stack(errors).mean(), rtol=1e-5, atol=1e-6)


def test_mae_predicts_without_having_seen_the_masked_pixels(batch) -> None:
    task = make("mae")
    predicted, visible, _ = task._predict(batch)
    other = torch.where(only(torch.ones_like(batch["x"]), mask_of(visible, 64)) > 0, batch["x"], 7.0)
    torch.testing.assert_close(task._predict({**batch, "x": other})[0], predicted)


def test_simmim_is_l1_of_units_masked_alike(batch) -> None:
    task = make("simmim")
    predicted, mask = task._predict(batch)
    assert torch.equal(mask.sum(1), torch.full((4,), 38))
    error = (unpatchify(predicted, 3) - batch["x"]).abs()
    masked = only(torch.ones_like(batch["x"]), mask)
    torch.testing.assert_close(task.loss(batch).value, (error * masked).sum() / masked.sum())
    coarse = find_task("simmim")(build_encoder("vit-mini", SPEC), mask_unit=0.25)
    square = coarse._predict(batch)[1].view(4, 4, 2, 4, 2)
    assert torch.equal(square.any(4).any(2), square.all(4).all(2)), "whole units of 2 × 2 patches"


def test_ijepa_sees_nothing_of_its_targets(batch) -> None:
    task = make("ijepa")
    context, masked = task._choose(KEY)
    assert masked.shape == (40, 4, 12)
    assert not (context[:, :, None] == masked.flatten(1)[:, None]).any()
    predicted, target, context, masked = task._predict(batch)
    states = task.target_encoder.tokens(batch["x"])
    alone = F.layer_norm(take(states, masked[:, 3]), (64,))
    torch.testing.assert_close(target[:, 36:], alone)
    tokens = task.encoder.tokens(batch["x"], context)
    torch.testing.assert_close(predicted[:, 36:], task.predictor(tokens, context, masked[:, 3]), rtol=1e-4, atol=1e-5)


def test_data2vec_targets_are_the_normalized_mean_of_the_last_mlps(batch) -> None:
    task = make("data2vec", skip_layers=0)
    _, target, keep = task._predict(batch)
    assert keep.shape == (16, 13)
    assert not torch.equal(keep[0], keep[1])
    layers = []
    for layer in task.teacher.mlp_outputs(batch["x"], 2):
        mean, deviation = layer.mean(1, keepdim=True), layer.std(1, correction=0, keepdim=True)
        layers.append((layer - mean) / (deviation.square() + 1e-5).sqrt())
    mean = sum(layers) / 2
    mean = (mean - mean.mean(2, keepdim=True)) / (mean.var(2, correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(target[::4], mean, rtol=1e-4, atol=1e-4)


def test_cross_view_entropy_is_the_mean_over_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(2, 5, 7, generator=generator, dtype=torch.float64).softmax(2)
    logits = torch.randn(4, 5, 7, generator=generator, dtype=torch.float64)
    pairs = [
        -(targets[t] * torch.log(torch.exp(logits[v] / 0.1) / torch.exp(logits[v] / 0.1).sum(1, keepdim=True))).sum(1)
        for t in range(2)
        for v in range(4)
        if t != v
    ]
    torch.testing.assert_close(cross_view_entropy(targets, logits, 0.1), torch.stack(pairs).mean())


def test_masked_entropy_weighs_crops_alike() -> None:
    mask = torch.tensor([[True, True, True, False], [False] * 4, [False] * 4, [False, False, False, True]])
    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(4, 5, generator=generator, dtype=torch.float64).softmax(1)
    logits = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    each = -(targets * torch.log_softmax(logits / 0.3, 1)).sum(1)
    torch.testing.assert_close(masked_entropy(targets, logits, 0.3, mask), (each[:3].mean() + each[3]) / 2)


@pytest.mark.parametrize("name", ["dino", "ibot"])
def test_the_center_changes_in_after_step_alone(name: str, crops) -> None:
    plain = {"batch_norm": False}  # its buffers change in a forward pass
    task = make(name, num_prototypes=8, hidden_dim=16, out_dim=8, num_local_crops=3, **plain)
    before = {key: value.clone() for key, value in task.named_buffers()}
    task.loss(crops)
    assert all(torch.equal(before[key], value) for key, value in task.named_buffers())
    seen = task.seen
    task.after_step()
    parts = [(task.center, seen)] if name == "dino" else zip(task.centers, seen, strict=True)
    for center, cosines in parts:
        torch.testing.assert_close(center, 0.1 * cosines.mean(0))


def test_dino_is_its_formula(crops) -> None:
    task = make(
        "dino",
        num_prototypes=8,
        hidden_dim=16,
        out_dim=8,
        num_local_crops=3,
        batch_norm=False,
        teacher_temperature=0.07,
    )
    task.center.copy_(torch.linspace(-0.2, 0.2, 8))
    task.progress = 0.15
    assert task.loss(crops).chance == pytest.approx(math.log(8))

    def cosines(encoder, head, prototypes, x):
        z, w = head(encoder(x)).double(), prototypes.weight.double()
        return (z / z.norm(dim=1, keepdim=True)) @ (w / w.norm(dim=1, keepdim=True)).T

    views = [*crops["x"].unbind(1), *crops["local"].unbind(1)]
    logs = [torch.log_softmax(cosines(task.encoder, task.head, task.prototypes, v) / 0.1, 1) for v in views]
    targets = [torch.softmax((cosines(*task.teacher, v) - task.center) / 0.055, 1) for v in views[:2]]
    pairs = [-(targets[t] * logs[v]).sum(1).mean() for t in range(2) for v in range(5) if t != v]
    torch.testing.assert_close(task.loss(crops).value.double(), torch.stack(pairs).mean(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["dino", "ibot", "dinov2"])
def test_prototypes_rest_at_first(name: str) -> None:
    task = make(name, freeze_prototypes=0.2)
    theirs = [child for child, _ in task.named_children() if child.endswith("prototypes")]
    assert len(theirs) == (2 if name == "dinov2" else 1)
    for child, _ in task.named_children():
        task.progress = 0.0
        assert task.lr_of(child, 1.0, 1.0) == (child not in theirs)
        task.progress = 0.2
        assert task.lr_of(child, 1.0, 1.0) == 1


@pytest.mark.parametrize(("name", "limit"), [("dino", 0.4), ("ibot", 0.25), ("dinov2", 0.32)])
def test_large_and_small_crops_are_those_of_the_paper(name: str, limit: float) -> None:
    groups = make(name).views(SPEC).groups
    assert (groups["x"].scale, groups["local"].scale) == ((limit, 1), (0.05, limit))


@pytest.mark.parametrize(("name", "kept"), [("dino", "teacher.0"), ("ibot", "teacher"), ("ijepa", "target_encoder")])
def test_the_ema_encoder_is_kept(name: str, kept: str) -> None:
    task = make(name)
    assert task.representation() is task.get_submodule(kept)
    assert task.representation() is not task.encoder
    assert task.representation().state_dict().keys() == task.encoder.state_dict().keys()


def test_dinov2_shares_its_answers_out_evenly(crops) -> None:
    task = make("dinov2", num_prototypes=4, hidden_dim=16, out_dim=8, num_local_crops=0, koleo_weight=0.0)
    only_large = {key: crops[key] for key in ("x", "noise")}
    loss = task.loss(only_large)
    torch.testing.assert_close(loss.value, loss.metrics["crop_loss"] + loss.metrics["patch_loss"])
    assert loss.metrics["koleo"] > 0


def test_gram_anchors_patches_to_the_teacher_of_an_earlier_time(crops) -> None:
    options = {"num_prototypes": 4, "hidden_dim": 16, "out_dim": 8, "momentum": 0.5}
    task, plain = make("dinov2", gram_weight=3.0, gram_start=0.5, **options), make("dinov2", **options)
    assert not any("gram" in key for key in plain.state_dict())

    def weights(encoder):
        return torch.cat([p.detach().flatten() for p in encoder.parameters()])

    for progress, follows in ((0.25, True), (0.5, True), (0.75, False)):
        with torch.no_grad():
            for parameter in task.encoder.parameters():
                parameter.add_(0.01)
        task.progress = plain.progress = progress
        task.after_step()
        assert torch.equal(weights(task.gram_teacher), weights(task.teacher)) == follows
    plain.load_state_dict({key: value for key, value in task.state_dict().items() if "gram" not in key})
    loss, without = task.loss(crops), plain.loss(crops)
    torch.testing.assert_close(loss.value, without.value + 3 * loss.metrics["gram"])
    large, mask = half_masked(crops, task.grid, task.mask_ratios)
    student = task.encoder.tokens(large, mask=mask, mask_token=task.mask_token[None])
    torch.testing.assert_close(loss.metrics["gram"], gram_distance(student, task.gram_teacher.tokens(large)).detach())
    task.progress = 0.5
    assert "gram" not in task.loss(crops).metrics


def test_small_crops_are_whole_patches() -> None:
    assert multi_crop(64, 4, 8)["local"].size == 24
    assert multi_crop(28, 4, 4)["local"].size == 12
    assert multi_crop(64, 4)["local"].size == 27
    assert "local" not in multi_crop(64, 0)


def test_dino_takes_a_convolutional_encoder(crops) -> None:
    task = find_task("dino")(build_encoder("convnet", SPEC), num_prototypes=8, hidden_dim=16, out_dim=8)
    task.loss(crops).value.backward()
    task.after_step()


def test_the_decoder_of_mae_is_as_wide_as_the_encoder_asks() -> None:
    assert [decoder_width(dim) for dim in (64, 128, 192, 384, 768, 1280)] == [64, 64, 128, 256, 512, 512]
    task = MAE(build_encoder("vit_tiny_patch16_224", SPEC))
    assert task.decoder.mask_token.shape == (128,)
    assert MAE(task.encoder, decoder_dim=32).decoder.mask_token.shape == (32,)


@pytest.mark.parametrize("name", HIDING)
def test_a_convolutional_encoder_is_one_line(name: str) -> None:
    with pytest.raises(UserError, match="needs a plain vision transformer: --encoder vit"):
        find_task(name)(build_encoder("convnet", SPEC))


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("mae", {"mask_ratio": 1.0}, "leaves 0 of 64"),
        ("mae", {"decoder_dim": 30}, "multiple of 4"),
        ("simmim", {"mask_ratio": 0.0}, "masks 0 of 64"),
        ("ijepa", {"num_targets": 6}, "leave no patch"),
        ("data2vec", {"mask_ratio": 1.0}, "leaves 0"),
        ("dino", {"num_prototypes": 1}, "--num-prototypes"),
        ("ibot", {"min_mask_ratio": 0.6}, "--min-mask-ratio"),
    ],
)
def test_bad_options_are_one_line(name: str, options: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make(name, **options)


def test_one_small_crop_is_one_line() -> None:
    with pytest.raises(UserError, match="--num-local-crops"):
        make("dino", num_local_crops=1).views(SPEC)
