"""What is particular to the methods that compare views."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import selfsup
from selfsup.data.image import Arrays
from selfsup.encoders import build_encoder
from selfsup.errors import UserError
from selfsup.evaluation.label_free import rankme
from selfsup.losses import sigreg
from selfsup.nn.ema import cosine_schedule
from selfsup.nn.heads import each_view
from selfsup.nn.kmeans import spherical_kmeans
from selfsup.spec import ImageSpec
from selfsup.tasks import find_task
from selfsup.tasks.image.empssl import coding_rate
from selfsup.tasks.image.visreg import scale_shape_centre
from selfsup.train.optim import build_optimizer
from selfsup.views.image import Crop, ImageViews
from selfsup.views.loader import batches
from support.sources import images as toy_images

SPEC = ImageSpec.of(16, 3)
ROWS = np.arange(128)


def make(name: str, **options: object):
    torch.manual_seed(0)
    return find_task(name)(build_encoder("convnet", SPEC), **options)


def two_views(size: int = 8, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "x": torch.randn(size, 2, 3, 16, 16, generator=generator),
        "noise": torch.randint(-(2**62), 2**62, (size,), generator=generator),
        "index": torch.arange(size),
    }


def test_the_positive_of_moco_is_never_among_its_negatives() -> None:
    task = make("moco", queue_size=24)
    for seed in range(5):
        before = task.queue.rows.clone()
        task.loss(two_views(seed=seed))
        assert task.seen is not None
        _, positive = task.seen
        assert torch.equal(task.queue.rows, before), "the keys of a batch are not in the queue before its loss"
        assert (positive @ before.T).max() < 1 - 1e-6
        task.after_step()
        torch.testing.assert_close(task.queue.rows[(task.queue.at - 8) % 24], positive[0])


@pytest.mark.parametrize("queue_size", [5, 24, 40])
def test_a_past_key_of_an_image_is_no_negative_of_its_own_query(queue_size: int) -> None:
    task = make("moco", queue_size=queue_size).eval()
    for seed in range(4):  # images 0 to 7, then 4 to 11, 8 to 15 and 12 to 19
        task.loss(two_views(seed=seed) | {"index": torch.arange(8) + 4 * seed})
        task.after_step()
    there = [*range(19, 11, -1), *range(15, 7, -1), *range(11, 3, -1), *range(7, -1, -1)][:queue_size]
    assert sorted(task.queue.owners.tolist()) == sorted([*there, *[-1] * (queue_size - len(there))])

    batch = two_views() | {"index": torch.tensor([19, 18, 12, 8, 0, 50, 51, 52])}
    query, key = (task.embed(batch["x"][:, 0]), task.momentum_keys(batch["x"][:, 1], torch.arange(8)))
    wanted = []
    for q, k, image in zip(query, key, batch["index"], strict=True):
        rows = torch.cat([k[None], task.queue.rows[task.queue.owners != image]])
        wanted.append(-torch.log_softmax(rows @ q / task.temperature, 0)[0])
    torch.testing.assert_close(task.loss(batch).value, torch.stack(wanted).mean())


def test_moco_computes_keys_in_parts_but_returns_them_in_order() -> None:
    task = make("moco", num_splits=2)
    for module in task.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()  # so that the parts do not differ
    batch = two_views()
    keys = task.momentum_keys(batch["x"][:, 1], batch["noise"].argsort())
    torch.testing.assert_close(keys, torch.nn.functional.normalize(task.momentum_encoder(batch["x"][:, 1]), dim=1))


def test_the_loss_of_denseclr_is_that_of_views_and_of_the_places_most_alike() -> None:
    task = make("denseclr", queue_size=6, grid=2, dense_weight=0.3).eval()
    task.loss(two_views(seed=1) | {"index": torch.arange(8) + 4})  # the last six are 6 to 11
    task.after_step()
    assert task.queue.owners.tolist() == task.dense_queue.owners.tolist()
    for parameter in task.momentum_encoder.parameters():
        parameter.mul_(1.1)  # as another network would be
    batch, views, places = two_views(), [], []
    maps = [
        torch.nn.functional.adaptive_avg_pool2d(encoder.maps(batch["x"][:, view]), 2).flatten(2)  # (B, D, 4)
        for view, encoder in enumerate((task.encoder, task.momentum_encoder))
    ]

    def nearest(query, key, queue, image):
        rows = torch.cat([key[None], queue.rows[queue.owners != image]])
        return -torch.log_softmax(torch.cosine_similarity(rows, query[None]) / task.temperature, 0)[0]

    (of_view, of_place), (key_of_view, key_of_place) = task.projectors, task.momentum_projectors
    for image, (query, key) in enumerate(zip(*maps, strict=True)):
        views.append(nearest(of_view(query.mean(1)), key_of_view(key.mean(1)), task.queue, image))
        for place in query.T:
            alike = key.T[torch.cosine_similarity(key.T, place[None]).argmax()]
            places.append(nearest(of_place(place), key_of_place(alike), task.dense_queue, image))
    loss = task.loss(batch)
    torch.testing.assert_close(loss.value, 0.7 * torch.stack(views).mean() + 0.3 * torch.stack(places).mean())
    wanted = torch.nn.functional.normalize(key_of_place(maps[1].transpose(1, 2)).mean(1))
    torch.testing.assert_close(task.seen[2], wanted, msg="a past key of places is the mean over them")


def test_denseclr_takes_a_transformer_and_refuses_an_encoder_without_places() -> None:
    task = find_task("denseclr")(build_encoder("vit-mini", SPEC), queue_size=6)
    assert task.sides == (7, 7)
    task.loss(two_views()).value.backward()
    with pytest.raises(UserError, match="no patch features, only one vector an image"):
        find_task("denseclr")(build_encoder("mlp", SPEC))


def test_the_target_network_is_updated_and_the_momentum_ends_at_1() -> None:
    task = make("byol", momentum=0.5)
    before = [p.clone() for p in task.target.parameters()]
    with torch.no_grad():
        for parameter in task.encoder.parameters():
            parameter.add_(1)
    task.after_step()
    moved = [float((p - b).mean()) for p, b in zip(task.target[0].parameters(), before, strict=False)]
    assert moved == pytest.approx([0.5] * len(moved), abs=1e-5)
    assert cosine_schedule(0.99, 1.0, 0.0) == pytest.approx(0.99)
    assert cosine_schedule(0.99, 1.0, 0.5) == pytest.approx(0.995)
    assert cosine_schedule(0.99, 1.0, 1.0) == 1.0


def test_each_view_keeps_samples_and_views_apart() -> None:
    x = torch.arange(12.0).view(3, 2, 2)
    assert torch.equal(each_view(lambda flat: 2 * flat, x), 2 * x.transpose(0, 1))


def test_a_patch_embedding_stays_in_mocov3() -> None:
    torch.manual_seed(0)
    task = find_task("mocov3")(build_encoder("vit", SPEC))
    frozen = [name for name, p in task.encoder.named_parameters() if not p.requires_grad]
    assert frozen
    assert all("patch_embed" in name for name in frozen)


def test_the_prototypes_have_unit_length_after_a_step_and_wait_at_first() -> None:
    task = make("swav", num_prototypes=10, queue_size=16)
    with torch.no_grad():
        task.prototypes.weight.mul_(3)
    task.after_step()
    torch.testing.assert_close(task.prototypes.weight.norm(dim=1), torch.ones(10))
    task.progress = 0.0
    assert task.lr_of("prototypes", 0.1, 0.2) == 0.0
    assert task.lr_of("encoder", 0.1, 0.2) == 0.1
    task.progress = 0.5
    assert task.lr_of("prototypes", 0.1, 0.2) == 0.1


def test_the_memory_moves_towards_the_embedding() -> None:
    task = make("instance", num_items=20, momentum=0.5)
    batch = two_views() | {"x": two_views()["x"][:, 0]}
    before = task.bank.clone()
    loss = task.loss(batch)
    assert loss.chance == pytest.approx(math.log(20))
    assert task.seen is not None
    expected = torch.nn.functional.normalize(before[:8] + task.seen[1], dim=1)
    task.after_step()
    torch.testing.assert_close(task.bank[:8], expected)
    assert torch.equal(task.bank[8:], before[8:])


def test_kmeans_finds_clusters_and_leaves_none_empty() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.nn.functional.normalize(torch.randn(6, 16, generator=generator), dim=1)
    truth = torch.arange(240) % 6
    x = torch.nn.functional.normalize(centres[truth] + 0.05 * torch.randn(240, 16, generator=generator), dim=1)
    found, label = spherical_kmeans(x, 12, seed=0)
    assert len(label.unique()) == 12
    torch.testing.assert_close(found.norm(dim=1), torch.ones(12))
    pure = sum(torch.bincount(truth[label == cluster]).max() for cluster in range(12)) / 240
    assert pure > 0.8, "k-means is a local search"


def test_the_first_epoch_of_deepcluster_fills_many_clusters_and_keeps_the_rank() -> None:
    source = toy_images(192)
    task = make("deepcluster", num_items=len(source), num_clusters=48, hidden_dim=64, out_dim=32)
    views = task.views(SPEC)
    optimizer = build_optimizer(task, "adamw", 2e-3, 0.05)
    x = ImageViews(SPEC, {"x": Crop(16)}).finish(ImageViews(SPEC, {"x": Crop(16)}).fetch(source, ROWS, 0, 0).batch)["x"]

    def rank() -> float:
        with torch.no_grad():
            return rankme(task.encoder.eval()(x).numpy())

    before = rank()
    for step, fetched in enumerate(batches(source, views, batch_size=16, seed=0, start=0, steps=12, workers=0)):
        loss = task.train().loss(views.finish(fetched.batch))
        loss.value.backward()
        optimizer.step()
        optimizer.zero_grad()
        task.after_step()
        assert (task.labels >= 0).any() == (step == 11), "the embeddings of a whole epoch are clustered"
    assert loss.metrics["clusters"] >= 8
    assert loss.metrics["largest"] <= 0.25
    assert rank() > 0.7 * before
    last = task.loss(views.finish(fetched.batch))
    assert last.metrics["clusters"] >= 8
    assert last.metrics["largest"] <= 0.25


@pytest.mark.parametrize("name", ["instance", "moco", "denseclr", "nnclr", "swav", "deepcluster"])
def test_queues_and_memories_resume_bit_for_bit(name: str, tmp_path: Path) -> None:
    x = torch.randint(0, 255, (40, 16, 16, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8).numpy()
    common = {"task": name, "encoder": "convnet", "steps": 8, "batch_size": 16, "quiet": True}
    whole = selfsup.pretrain(Arrays(x, None, "noise"), out=tmp_path / "whole", **common)
    for until in (3, None):
        run = selfsup.pretrain(Arrays(x, None, "noise"), out=tmp_path / "parts", until=until, **common)
    for file in ("encoder.safetensors", "checkpoint/latest.safetensors"):
        assert (run.folder / file).read_bytes() == (whole.folder / file).read_bytes(), file


@pytest.mark.parametrize("name", ["swav", "deepcluster", "lejepa", "dino", "visreg"])
def test_small_crops_suit_a_transformer_of_whole_patches(name: str) -> None:
    encoder = build_encoder("vit-mini", ImageSpec.of(32, 3))
    options = {"num_items": 64} if name == "deepcluster" else {}
    local = find_task(name)(encoder, **options).views(encoder.spec).groups["local"]
    assert local.size % encoder.patch == 0
    assert encoder(torch.zeros(2, 3, local.size, local.size)).shape == (2, encoder.dim)


def test_neighbours_of_nnclr_are_the_nearest_of_other_images() -> None:
    task = make("nnclr", queue_size=16).eval()
    for seed in range(2):
        task.loss(two_views(seed=seed) | {"index": torch.arange(8) + 8 * seed})
        task.after_step()
    assert task.queue.owners.tolist() == list(range(16))
    rows, own = task.queue.rows, torch.arange(4)
    torch.testing.assert_close(task.neighbours(rows[:4], own + 100), rows[:4], msg="another image may be the same")
    cosine = (rows[:4] @ rows.T).index_put_((own, own), torch.tensor(-2.0))
    torch.testing.assert_close(task.neighbours(rows[:4], own), rows[cosine.argmax(1)])


def test_the_loss_of_nnclr_is_equation_3_in_both_directions() -> None:
    task = make("nnclr", queue_size=16).eval()
    task.loss(two_views(seed=1) | {"index": torch.arange(8) + 50})
    task.after_step()
    batch, wanted = two_views(), []
    z = torch.nn.functional.normalize(each_view(task.embed, batch["x"]), dim=2)
    p = torch.nn.functional.normalize(task.predictor(each_view(task.embed, batch["x"]).flatten(0, 1)), dim=1)
    for near, other in ((task.neighbours(z[0], batch["index"]), p[8:]), (task.neighbours(z[1], batch["index"]), p[:8])):
        wanted.append(-torch.log_softmax(near @ other.T / task.temperature, 1).diagonal().mean())
    torch.testing.assert_close(task.loss(batch).value, torch.stack(wanted).mean())


@pytest.mark.parametrize("n", [5, 40])
def test_the_coding_rate_is_half_a_log_determinant(n: int) -> None:
    z = torch.randn(3, n, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for one, rate in zip(z, coding_rate(z, 0.2), strict=True):
        torch.testing.assert_close(rate, torch.linalg.slogdet(torch.eye(12) + 12 / (n * 0.2) * one.T @ one)[1] / 2)
    spread = torch.eye(12, dtype=torch.float64).repeat(2, 1)[None]
    collapsed = spread[:, :1].expand_as(spread)
    torch.testing.assert_close(coding_rate(spread, 0.2)[0].item(), 6 * math.log(1 + 1 / 0.2))
    assert coding_rate(collapsed, 0.2) < 0.3 * coding_rate(spread, 0.2)


def test_crops_of_empssl_have_one_area_and_the_scale_of_the_image() -> None:
    task = make("empssl", num_crops=5)
    (crop,) = task.views(ImageSpec.of(32, 3)).groups.values()
    assert (crop.size, crop.count, crop.scale, crop.ratio) == (16, 5, (0.25, 0.25), (1.0, 1.0))


def test_a_gaussian_has_scale_shape_and_centre_and_nothing_else_has() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 4000, 8, generator=generator)
    directions = torch.nn.functional.normalize(torch.randn(8, 64, generator=generator), dim=0)
    assert max(term.item() for term in scale_shape_centre(z, directions)) < 2e-3
    scale, shape, centre = (term.item() for term in scale_shape_centre(3 * z + 2, directions))
    assert scale == pytest.approx(4, rel=0.05)
    assert centre == pytest.approx(4, rel=0.05)
    assert shape < 2e-3, "it does not see scale and centre"
    assert scale_shape_centre(z[..., :1].expand_as(z), directions)[1] > 0.05, "all dimensions the same"


def test_near_a_collapse_visreg_pulls_apart_and_sigreg_does_not() -> None:
    """The motive of its authors: the gradient of the scale does not vanish where all embeddings are nearly the same."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(8, 64, generator=generator), dim=0)

    def pull(loss: Callable[[torch.Tensor], torch.Tensor], std: float) -> float:
        z = (std * torch.randn(64, 8, generator=generator.manual_seed(1))).requires_grad_()
        loss(z).backward()
        return float(-(z.grad * z.detach()).sum() / z.detach().norm())

    far, near = 0.1, 1e-3
    ours, other = (lambda z: scale_shape_centre(z[None], directions)[0]), (lambda z: sigreg(z, directions))
    assert pull(ours, near) > 0.9 * pull(ours, far) > 0
    assert pull(other, near) < 0.1 * pull(other, far)
