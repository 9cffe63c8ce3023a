"""Encoders that begin trained: how their images are normalized, and how fast they learn."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch

import selfsup
from selfsup.encoders import build_encoder, spec_of_weights
from selfsup.errors import UserError
from selfsup.request import resolve
from selfsup.spec import ImageSpec
from selfsup.tasks import find_task
from selfsup.train.optim import build_optimizer
from selfsup.train.plan import Plan, make_plan
from support.sources import images

BASE = SimpleNamespace(dim=768, has_tokens=True)  # as ViT-B
GIVEN = {"steps": 4, "batch_size": 8, "quiet": True}


def test_images_are_normalized_as_the_weights_expect(capsys: pytest.CaptureFixture[str]) -> None:
    asked = resolve("rotation", images(), {}, encoder="test_vit", pretrained=True)
    assert asked.spec.mean == asked.spec.std == (0.5, 0.5, 0.5)
    told = capsys.readouterr().err
    assert "normalized as those that test_vit was pretrained on: mean 0.5, 0.5, 0.5; std 0.5, 0.5, 0.5" in told
    for encoder, pretrained in (("resnet18", True), ("test_vit", False)):
        spec = resolve("rotation", images(), {}, encoder=encoder, pretrained=pretrained).spec
        assert spec == ImageSpec.of(32, 3)
    assert "normalized" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["resnet18.none", "no_model", "convnet", "vit"])
def test_weights_without_a_mean_change_nothing(name: str) -> None:
    spec = ImageSpec.of(32, 3)
    assert spec_of_weights(name, spec) == spec


def test_grey_images_get_the_mean_of_the_channels_and_others_keep_their_own() -> None:
    grey = spec_of_weights("resnet18", ImageSpec.of(32, 1))
    assert (grey.mean, grey.std) == (pytest.approx((0.449,)), pytest.approx((0.226,)))
    for spec in (ImageSpec(32, 3, (0.1,) * 3, (0.2,) * 3, (0.0, 4095.0)), ImageSpec.of(32, 5)):
        assert spec_of_weights("test_vit", spec) == spec


def test_wide_transformers_get_the_rate_of_the_papers() -> None:
    mae, simcse = find_task("mae"), find_task("simcse")
    assert make_plan(mae, 128, {}, encoder=BASE, steps=1).lr == pytest.approx(1.5e-4 * 128 / 256)
    assert make_plan(mae, 4096, {}, encoder=BASE, steps=1).lr == pytest.approx(2.4e-3)
    started = make_plan(simcse, 128, {}, encoder=BASE, trained=True, steps=1)
    assert started.lr == started.encoder_lr == pytest.approx(3e-5)
    narrow, conv = SimpleNamespace(dim=128, has_tokens=True), SimpleNamespace(dim=2048, has_tokens=False)
    assert (
        make_plan(mae, 128, {}, encoder=narrow, steps=1).lr == make_plan(mae, 128, {}, encoder=conv, steps=1).lr == 2e-3
    )
    assert make_plan(mae, 128, {"lr": 0.1}, encoder=BASE, steps=1).lr == 0.1
    assert make_plan(mae, 128, {"optimizer": "sgd"}, encoder=BASE, steps=1).lr == 0.05


def test_lower_layers_learn_more_slowly_with_layer_decay() -> None:
    def rates(task: str, encoder: str, layer_decay: float | None) -> dict[str, float]:
        made = find_task(task)(build_encoder(encoder, ImageSpec.of(32, 3)))
        named = {parameter: name for name, parameter in made.named_parameters()}
        groups = build_optimizer(made, "adamw", 0.1, 0.3, layer_decay=layer_decay).param_groups
        return {named[parameter]: group["rate"] for group in groups for parameter in group["params"]}

    for task, encoder in (("simclr", "test_vit"), ("simclr", "resnet18")):
        found = rates(task, encoder, 0.5)
        of = {name: rate for name, rate in found.items() if name.startswith("encoder.")}
        layers = sorted(set(of.values()))
        assert layers == [0.5**n for n in range(len(layers) - 1, -1, -1)]
        assert len(layers) > 4
        first = "encoder.model.patch_embed.proj.weight" if encoder == "test_vit" else "encoder.model.conv1.weight"
        assert of[first] == layers[0]  # what sees the image first moves least
        assert {rate for name, rate in found.items() if name not in of} == {1.0}
        assert set(rates(task, encoder, None).values()) == {1.0}
    assert sorted(set(rates("rotation", "convnet", 0.5).values())) == [0.25, 0.5, 1.0]
    with pytest.raises(UserError, match="leave it out"):
        build_optimizer(torch.nn.ModuleDict({"encoder": torch.nn.Linear(2, 2)}), "adamw", 0.1, 0.3, layer_decay=0.5)


def test_a_trained_encoder_waits_for_the_rest_and_learns_more_slowly() -> None:
    plan = make_plan(find_task("rotation"), 128, {"warmup": 0.2}, trained=True, steps=100)
    assert plan.encoder_lr == pytest.approx(plan.lr / 10)
    rates = [plan.lr_at(step, "encoder") for step in range(100)]
    assert set(rates[:20]) == {0.0}
    assert 0 < rates[20] < max(rates) <= plan.encoder_lr
    assert max(rates) == pytest.approx(plan.encoder_lr, rel=0.01)
    assert max(plan.lr_at(step, "head") for step in range(100)) == pytest.approx(plan.lr, rel=0.01)
    given = make_plan(find_task("rotation"), 128, {"lr": 0.003, "warmup": 0.0}, trained=True, steps=100)
    assert given.encoder_lr == given.lr == 0.003
    assert given.lr_at(0, "encoder") > 0.0029
    assert Plan(steps=10, warmup=1.0, encoder_lr=0.1).lr_at(9, "encoder") == 0.0


def test_a_run_from_weights_says_its_rates_and_keeps_the_encoder_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained=False, **more: create(name, **more))
    options = GIVEN | {"encoder": "test_vit", "pretrained": True, "warmup": 0.5, "out": tmp_path / "run"}
    run = selfsup.pretrain(images(), **options, until=2)
    told = capsys.readouterr().err
    assert (
        "the encoder starts from trained weights: frozen in the first 50% of the steps, while the rest warms up" in told
    )
    torch.manual_seed(0)
    before, (task, step) = selfsup.Run(run.folder).fresh_encoder(), run.load_task()
    assert step == 2
    fresh = dict(before.named_parameters())
    assert all(torch.equal(fresh[name], value) for name, value in task.encoder.named_parameters())
    selfsup.pretrain(images(), **options)
    further = selfsup.pretrain(images(), init=run.folder, out=tmp_path / "on", **GIVEN)
    assert further.recipe["plan"]["encoder_lr"] == pytest.approx(further.recipe["plan"]["lr"] / 10)
    assert further.spec.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("task", ["vae", "colorization"])
def test_a_run_whose_task_keeps_more_than_the_encoder_starts_others_with_it(tmp_path: Path, task: str) -> None:
    first = selfsup.pretrain(images(), task=task, encoder="convnet", out=tmp_path / "first", **GIVEN)
    wanted = dict(first.load().encoder.named_parameters())
    further = selfsup.pretrain(images(), init=first.folder, out=tmp_path / "on", warmup=0.5, until=2, **GIVEN)
    task, _ = further.load_task()  # its encoder is still frozen
    assert wanted
    assert all(torch.equal(wanted[name], value) for name, value in task.encoder.named_parameters())
