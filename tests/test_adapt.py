"""Going on from trained weights: files of weights, the pull back to them, and `adapt`, which keeps what is better."""

import argparse
import json
import math
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import selfsup
from selfsup import adapting
from selfsup.base.notes import hearing, say
from selfsup.encoders import build_encoder
from selfsup.encoders.weights import read_weights
from selfsup.errors import UserError
from selfsup.spec import ImageSpec
from selfsup.train.anchor import Anchor
from selfsup.train.optim import build_optimizer
from support.folders import write_images_and_a_broken_one
from support.sources import images

SMALL = {"steps": 8, "batch_size": 32, "quiet": True}
SPEC = ImageSpec.of(32, 3)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return labels of 60 digits."""
    source = selfsup.open_data("digits")
    rows = [f"{source.path(i)},{source.labels.classes[source.labels.ids[i]]}" for i in range(60)]
    file = tmp_path_factory.mktemp("few") / "few.csv"
    file.write_text("path,label\n" + "\n".join(rows) + "\n")
    return file


@pytest.fixture(autouse=True)
def looked_at_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapting, "SAMPLES", 240)
    monkeypatch.setattr(adapting, "REPEATS", 1)


def adapt(one_run: Path, out: Path, **given: Any) -> adapting.Adapted:
    return selfsup.adapt("digits", init=one_run, task="simclr", out=out, **{**SMALL, **given})


def test_adapt_stands_beside_the_frozen_start_and_keeps_the_best(one_run: Path, few: Path, tmp_path: Path) -> None:
    found = adapt(one_run, tmp_path / "run", labels=few, min_scale=0.5)
    assert [stage.step for stage in found.stages] == [0, 1, 2, 4, 6, 8]
    assert found.labelled == 60
    best = max(found.stages, key=lambda stage: (stage.accuracy, stage.step))
    assert found.kept == best.step
    kept, start = (load_file(tmp_path / "run" / f"{name}.safetensors") for name in ("encoder", "start"))
    assert all(torch.equal(start[key], value) for key, value in load_file(one_run / "encoder.safetensors").items())
    same = all(torch.equal(kept[key], start[key]) for key in kept)
    assert same == (found.kept == 0)
    assert found.verdict() in str(json.dumps(found.as_json(), ensure_ascii=False))
    rows = selfsup.evaluate(
        tmp_path / "run", data="digits", shots="1", protocol="linear", draws=2, scratch=False, quiet=True
    ).scores
    assert "frozen start" in {score.representation for score in rows}


def test_a_killed_adaptation_ends_with_the_same_encoder(
    one_run: Path, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = adapt(one_run, tmp_path / "whole", labels=few)
    check = adapting.Guard.check

    def killed(self: adapting.Guard, weights: Any, step: int) -> adapting.Stage:
        if step == 4:
            raise KeyboardInterrupt
        return check(self, weights, step)

    with monkeypatch.context() as patch:
        patch.setattr(adapting.Guard, "check", killed)
        with pytest.raises(KeyboardInterrupt):
            adapt(one_run, tmp_path / "killed", labels=few)
    again = adapt(one_run, tmp_path / "killed", labels=few)
    assert again.stages == whole.stages
    files = [(tmp_path / name / "encoder.safetensors") for name in ("whole", "killed")]
    first, second = map(load_file, files)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert adapt(one_run, tmp_path / "killed", labels=few).stages == whole.stages  # finished: nothing is trained


def test_a_rate_far_too_high_raises_the_alarm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = selfsup.pretrain("digits", encoder="vit-mini", out=tmp_path / "start", **SMALL).folder
    found = adapt(start, tmp_path / "run", lr=3.0, steps=24, warmup=0.0)
    assert found.stages[-1].alarm
    assert found.kept < found.stages[-1].step
    assert "alarm at step" in capsys.readouterr().err
    assert "--lr" in found.verdict()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "give --encoder (a model of timm) or --init"),
        ({"encoder": "convnet"}, "convnet has no pretrained weights"),
        ({"encoder": "resnet18", "init": "x"}, "not both"),
        ({"encoder": "resnet18", "steps": 1, "epochs": 1}, "only one of"),
        ({"encoder": "resnet18", "weights": "nowhere.pth"}, "no such file"),
    ],
)
def test_what_adapt_cannot_start_from(given: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        selfsup.adapt("digits", task="simclr", out=tmp_path / "run", quiet=True, **given)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("task", ["bigan", "vae", "split_brain"])
def test_a_task_that_keeps_more_than_the_encoder_is_refused(task: str, one_run: Path, tmp_path: Path) -> None:
    size = {"channels": 3} if task == "split_brain" else {}  # it needs colour
    start = selfsup.pretrain(images(), encoder="convnet", out=tmp_path / "colour", **SMALL) if size else one_run
    with pytest.raises(UserError, match=f"what {task} keeps is not convnet"):
        selfsup.adapt(images() if size else "digits", init=start, task=task, out=tmp_path / "run", **SMALL)
    assert not (tmp_path / "run").exists()


def test_samples_that_cannot_be_read_are_no_part_of_the_structure(
    one_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images_and_a_broken_one(tmp_path / "data")
    (tmp_path / "few.csv").write_text(
        "path,label\ndark/broken.png,dark\n"
        + "".join(f"{label}/{i}.png,{label}\n" for label in ("dark", "light") for i in range(10))
    )
    checks, check = [], adapting.Guard.check

    def watched(self: adapting.Guard, weights: Any, step: int) -> adapting.Stage:
        checks.append((len(self.source), len(self.clusters), self.labelled))
        assert {self.source.path(row).split("/")[-2] for row in self.rows[self.y == 0]} == {"dark"}
        return check(self, weights, step)

    monkeypatch.setattr(adapting.Guard, "check", watched)
    given = {"labels": tmp_path / "few.csv", "steps": 2, "batch_size": 16, "quiet": True}
    selfsup.adapt(tmp_path / "data", init=one_run, task="simclr", out=tmp_path / "run", **given)
    assert set(checks) == {(60, 60, 20)}


def test_weights_of_a_file_are_those_that_training_starts_with(tmp_path: Path) -> None:
    model = timm.create_model("test_resnet", num_classes=7)
    torch.save({"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "a.pth")
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    wanted = {key: value for key, value in model.state_dict().items() if not key.startswith("fc.")}
    for name in ("a.pth", "a.safetensors"):
        encoder = build_encoder("test_resnet", SPEC, weights=tmp_path / name)
        assert encoder.stem == "standard"
        assert all(torch.equal(value, wanted[key]) for key, value in encoder.model.state_dict().items())
    given = {"encoder": "test_resnet", "task": "rotation", "steps": 1, "batch_size": 4, "quiet": True}
    run = selfsup.pretrain(images(), weights=tmp_path / "a.pth", out=tmp_path / "run", **given)
    start = run.load_start()
    assert start is not None
    assert all(torch.equal(value, wanted[key]) for key, value in start.model.state_dict().items())
    torch.save({k: v + 1 for k, v in model.state_dict().items()}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="weights"):  # resumed with others
        selfsup.pretrain(images(), weights=tmp_path / "a.pth", out=tmp_path / "run", **given)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "other.safetensors")
    (tmp_path / "code.pth").write_bytes(pickle.dumps({"a": print}))
    torch.save({"model": np.float64(3)}, tmp_path / "none.pth")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "labels.csv").write_text("path,label\n")
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "wide.pth")
    torch.save(
        timm.create_model("test_resnet").state_dict() | {"fc.bias": torch.tensor([math.nan])}, tmp_path / "nan.pth"
    )
    torch.save({"mine": {"a": torch.ones(2)}, "other": {"a": torch.ones(2)}, "epoch": 3}, tmp_path / "parts.pth")
    for name, words in {
        "other.safetensors": "these weights do not fit test_resnet",
        "code.pth": "would run code|holds no weights",
        "none.pth": "holds no|would run code",
        "empty.safetensors": "holds no weights, or is cut off .*: get it again",
        "wide.pth": "do not fit test_resnet: size mismatch for bn1.weight.*; name the model that they are of",
        "nan.pth": r"holds weights that are not finite \(fc.bias\)",
        "parts.pth": "holds no named tensors, but 'mine', 'other': save the one",
        "labels.csv": "labels.csv is neither a .safetensors file nor one that torch saved",
    }.items():
        with pytest.raises(UserError, match=words):
            build_encoder("test_resnet", SPEC, weights=tmp_path / name)
    with pytest.raises(UserError, match="no such file"):
        read_weights(tmp_path / "nowhere.pth")


@pytest.mark.parametrize(
    ("wrapped", "told"),
    [
        ("module.encoder_q.", "'module.encoder_q.' are read; left out: 91, such as module.encoder_k.conv1"),
        ("module.base_encoder.", "'module.base_encoder.' are read"),
        ("module._orig_mod.", ""),
        ("model.backbone.", "'model.backbone.' are read"),
    ],
)  # fmt: skip
def test_weights_are_found_in_checkpoints_of_methods(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, wrapped: str, told: str
) -> None:
    trained = build_encoder("test_resnet", SPEC).model.state_dict()
    found = {wrapped + key: value for key, value in trained.items()}
    if wrapped.startswith("module.") and told:  # beside a momentum encoder and a head
        found |= {f"module.encoder_k.{key}": 0 * value for key, value in trained.items()}
        found["module.predictor.weight"] = torch.ones(3)
    elif told:
        found["model.head.weight"] = torch.ones(3)
    torch.save({"epoch": 3, "args": argparse.Namespace(lr=1), "state_dict": found}, tmp_path / "method.pth")
    weights = read_weights(tmp_path / "method.pth")
    assert weights.keys() == trained.keys()
    assert all(torch.equal(value, trained[key]) for key, value in weights.items())
    assert told in caplog.text if told else not caplog.text


def test_ones_and_zeros_are_no_sign_that_weights_fit(tmp_path: Path) -> None:
    state = timm.create_model("test_resnet").state_dict()
    save_file({f"stage.{key}": value for key, value in state.items()}, tmp_path / "renamed.safetensors")
    with pytest.raises(UserError, match="they lack 15 of 15 parameters, for example 'conv1"):
        build_encoder("test_resnet", SPEC, weights=tmp_path / "renamed.safetensors")


def test_what_a_file_lacks_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = timm.create_model("test_resnet").state_dict()
    some = {key: value for key, value in state.items() if not key.startswith("layer4")}
    save_file(some, tmp_path / "cut.safetensors")
    build_encoder("test_resnet", SPEC, weights=tmp_path / "cut.safetensors")
    assert re.search(r"\d of 15 parameters .*: layer4.*; what the file lacks begins untrained", caplog.text)


def test_weights_for_other_images_are_fitted_and_this_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("test_resnet", "test_vit"):
        save_file(timm.create_model(name).state_dict(), tmp_path / f"{name}.safetensors")
    build_encoder("test_resnet", ImageSpec.of(32, 1), weights=tmp_path / "test_resnet.safetensors")
    assert "conv1.0.weight of test_resnet is fitted from 16 × 3 × 3 × 3 to 16 × 1 × 3 × 3" in caplog.text
    build_encoder("test_vit", ImageSpec.of(64, 3), weights=tmp_path / "test_vit.safetensors")
    assert "pos_embed of test_vit is fitted from 1 × 101 × 64 to 1 × 17 × 64" in caplog.text
    with pytest.raises(UserError, match="test_vit cannot take 40 × 40 images: give another --size"):
        build_encoder("test_vit", ImageSpec.of(40, 3), weights=tmp_path / "test_vit.safetensors")


def test_l2_sp_draws_the_encoder_back_and_nothing_else() -> None:
    module = torch.nn.ModuleDict({"encoder": torch.nn.Linear(3, 3), "head": torch.nn.Linear(3, 1)})
    optimizer = build_optimizer(module, "sgd", 0.5, 0.0)
    for group in optimizer.param_groups:
        group["lr"] = 0.5
    anchor = Anchor(optimizer, 0.5)
    before = {key: value.detach().clone() for key, value in module.named_parameters()}
    with torch.no_grad():
        for value in module.parameters():
            value += 1
    anchor.pull()
    for key, value in module.named_parameters():
        moved = (value - before[key]).detach()
        assert torch.allclose(moved, torch.full_like(moved, 0.75 if key.startswith("encoder") else 1.0), atol=1e-6)


def test_l2_sp_is_for_trained_starts(tmp_path: Path, one_run: Path) -> None:
    with pytest.raises(UserError, match="--l2-sp"):
        selfsup.pretrain("digits", encoder="convnet", l2_sp=0.1, out=tmp_path / "run", **SMALL)
    near = selfsup.pretrain("digits", init=one_run, l2_sp=1e5, out=tmp_path / "near", recalibrate=False, **SMALL)
    start, end = load_file(near.folder / "start.safetensors"), load_file(near.folder / "encoder.safetensors")
    drawn = [key for key in start if key.endswith("weight")]
    assert all(torch.allclose(start[key], end[key], atol=1e-3) for key in drawn)


def test_lora_trains_little_and_is_merged_into_the_weights(tmp_path: Path) -> None:
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "a.safetensors")
    given = {"encoder": "test_vit", "weights": tmp_path / "a.safetensors", "task": "simclr", "lora": 4, "size": 32}
    run = selfsup.pretrain(images(), out=tmp_path / "run", warmup=0.0, lr=0.1, **{**SMALL, **given})
    encoder, start = run.load(), run.load_start()
    assert start is not None
    changed = {name for name, value in start.state_dict().items() if not torch.equal(value, encoder.state_dict()[name])}
    assert changed == {f"{name}.weight" for name, part in encoder.named_modules() if isinstance(part, torch.nn.Linear)}
    change = encoder.model.blocks[0].mlp.fc1.weight - start.model.blocks[0].mlp.fc1.weight
    assert torch.linalg.matrix_rank(change, rtol=1e-4) <= 4
    task, _ = run.load_task()
    x = SPEC.example(2)
    with torch.no_grad():
        assert torch.allclose(task.encoder(x), encoder(x), atol=1e-4)
    learned = sum(part.numel() for part in task.encoder.parameters() if part.requires_grad)
    assert learned < sum(part.numel() for part in encoder.parameters()) / 2
    with pytest.raises(UserError, match="--lora"):
        selfsup.pretrain("digits", encoder="convnet", lora=4, out=tmp_path / "no", **SMALL)


def test_a_note_of_every_stage_is_said_once(caplog) -> None:
    with hearing():
        say("1 of 3 parameters is not there", "another")
        say("1 of 3 parameters is not there")
    say("another")  # another call
    assert caplog.messages == ["1 of 3 parameters is not there", "another", "another"]
