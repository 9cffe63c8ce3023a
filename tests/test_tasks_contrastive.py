"""What is particular to the methods that compare views."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import selfsup
from selfsup.data.image import Arrays
from selfsup.encoders import build_encoder
from selfsup.evaluation.label_free import rankme
from selfsup.nn.ema import cosine_schedule
from selfsup.nn.heads import each_view
from selfsup.spec import ImageSpec
from selfsup.tasks import find_task
from selfsup.tasks.image.deepcluster_kmeans import spherical_kmeans
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
    assert sorted(task.owners.tolist()) == sorted([*there, *[-1] * (queue_size - len(there))])

    batch = two_views() | {"index": torch.tensor([19, 18, 12, 8, 0, 50, 51, 52])}
    query, key = (task.embed(batch["x"][:, 0]), task.momentum_keys(batch["x"][:, 1], torch.arange(8)))
    wanted = []
    for q, k, image in zip(query, key, batch["index"], strict=True):
        rows = torch.cat([k[None], task.queue.rows[task.owners != image]])
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


@pytest.mark.parametrize("name", ["instance", "moco", "swav", "deepcluster"])
def test_queues_and_memories_resume_bit_for_bit(name: str, tmp_path: Path) -> None:
    x = torch.randint(0, 255, (40, 16, 16, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8).numpy()
    common = {"task": name, "encoder": "convnet", "steps": 8, "batch_size": 16, "quiet": True}
    whole = selfsup.pretrain(Arrays(x, None, "noise"), out=tmp_path / "whole", **common)
    for until in (3, None):
        run = selfsup.pretrain(Arrays(x, None, "noise"), out=tmp_path / "parts", until=until, **common)
    for file in ("encoder.safetensors", "checkpoint/latest.safetensors"):
        assert (run.folder / file).read_bytes() == (whole.folder / file).read_bytes(), file


@pytest.mark.parametrize("name", ["swav", "deepcluster", "lejepa", "dino"])
def test_small_crops_suit_a_transformer_of_whole_patches(name: str) -> None:
    encoder = build_encoder("vit-mini", ImageSpec.of(32, 3))
    options = {"num_items": 64} if name == "deepcluster" else {}
    local = find_task(name)(encoder, **options).views(encoder.spec).groups["local"]
    assert local.size % encoder.patch == 0
    assert encoder(torch.zeros(2, 3, local.size, local.size)).shape == (2, encoder.dim)
