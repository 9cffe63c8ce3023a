"""A killed run resumes exactly where it was: bit for bit on a CPU."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import selfsup
from selfsup.errors import UserError
from selfsup.tasks.image.rotation import Rotation
from selfsup.train import fit as fit_module
from selfsup.train.checkpoint import load_tensors, save_tensors
from selfsup.train.signals import Interrupted
from support import kills

OPTIONS = {"encoder": "convnet", "epochs": 3, "batch_size": 16, "size": 12, "quiet": True, "seed": 5}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for number in range(70):
        x = generator.integers(0, 255, (20 + number % 3, 24, 3), dtype=np.uint8)
        Image.fromarray(x).save(folder / f"{number:02d}.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def uninterrupted(images: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    run = selfsup.pretrain(images, **OPTIONS, workers=0, out=tmp_path_factory.mktemp("runs") / "whole")
    return (run.folder / "encoder.safetensors").read_bytes()


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int, number: int = signal.SIGTERM) -> None:
    """Send this process a signal during the given step."""
    done = 0

    def after_step(task: Rotation) -> None:
        nonlocal done
        done += 1
        if done == step:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Rotation, "after_step", after_step)


@pytest.mark.parametrize(("workers", "then"), [(0, 0), (1, 2), (2, 0)])
def test_stopped_and_resumed_in_mid_epoch_is_bit_identical(
    images: Path, uninterrupted: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, then: int
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_after(patch, 6)
        with pytest.raises(Interrupted, match=r"step 6 of 12 by SIGTERM.*run the same command to resume"):
            selfsup.pretrain(images, **OPTIONS, workers=workers, out=out)
    assert not selfsup.Run(out).done
    run = selfsup.pretrain(images, **OPTIONS, workers=then, out=out)
    assert (run.folder / "encoder.safetensors").read_bytes() == uninterrupted
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 13)), "each step is logged once"
    skipped = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    assert skipped == [{"path": "broken.png", "reason": "not an image"}]


def test_optimizers_resume_too(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for optimizer in ("sgd", "lars"):
        options = {**OPTIONS, "optimizer": optimizer, "epochs": 2, "workers": 0, "clip": 1.0}
        whole = selfsup.pretrain(images, **options, out=tmp_path / optimizer)
        with monkeypatch.context() as patch:
            stop_after(patch, 3)
            with pytest.raises(Interrupted):
                selfsup.pretrain(images, **options, out=tmp_path / f"{optimizer}-stopped")
        again = selfsup.pretrain(images, **options, out=tmp_path / f"{optimizer}-stopped")
        files = [(run.folder / "encoder.safetensors").read_bytes() for run in (whole, again)]
        assert files[0] == files[1], optimizer


def test_killed_at_random_and_run_again_ends_with_the_same_weights(
    images: Path, uninterrupted: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    words = f"pretrain {images} --encoder convnet --epochs 3 --batch-size 16 --size 12 --seed 5 --workers 0 --quiet"
    words += f" --out {out}"
    made = kills.kill_while(words.split(), lambda: list(out.glob("metrics.jsonl")), (0.0, 0.03, 0.06), pause=0.1)
    assert made < 12
    kills.run(words.split())
    assert (out / "encoder.safetensors").read_bytes() == uninterrupted


def test_another_recipe_is_refused_with_the_lines_that_differ(images: Path, tmp_path: Path) -> None:
    run = selfsup.pretrain(images, **OPTIONS, out=tmp_path / "run")
    before = (run.folder / "encoder.safetensors").stat().st_mtime_ns
    with pytest.raises(UserError, match=r"holds another run.*plan\.lr: 0\.0007\d* here, 0\.001 requested"):
        selfsup.pretrain(images, **OPTIONS, lr=0.001, out=tmp_path / "run")
    Image.new("RGB", (20, 20)).save(images / "new.png")
    try:
        with pytest.raises(UserError, match=r"data\.samples: 71 here, 72 requested"):
            selfsup.pretrain(images, **OPTIONS, out=tmp_path / "run")
    finally:
        (images / "new.png").unlink()
    assert selfsup.pretrain(images, **OPTIONS, out=tmp_path / "run").done
    assert (run.folder / "encoder.safetensors").stat().st_mtime_ns == before, "a finished run is left alone"


@pytest.mark.parametrize("more", [{"steps": 6}, {"epochs": 9}, {"batch_size": 2}, {"lr": 0.1}])
def test_the_refusal_names_the_way_to_train_further(more: dict[str, float], finished_run: Path, tmp_path: Path) -> None:
    given = {"encoder": "convnet", "batch_size": 16, "quiet": True} | ({} if "epochs" in more else {"steps": 2}) | more
    with pytest.raises(UserError, match=rf"give another --out \(with --init {finished_run} to train its encoder"):
        selfsup.pretrain("digits", **given, out=finished_run)
    assert selfsup.pretrain("digits", init=finished_run, steps=1, batch_size=2, out=tmp_path / "on", quiet=True).done


def test_checkpoints_are_written_while_running(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_module, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(fit_module, "SAVE_SHARE", 1e9)
    saved = []
    monkeypatch.setattr(fit_module, "save_tensors", lambda path, tensors, about: saved.append(about["step"]))
    selfsup.pretrain(images, **OPTIONS, out=tmp_path / "run")
    assert saved == list(range(1, 13))


def test_float16_resumes_with_the_scale_of_its_loss(images: Path, tmp_path: Path) -> None:
    def train(**more):
        options = {"encoder": "convnet", "size": 16, "batch_size": 4, "steps": 4, "quiet": True, "device": "cpu"}
        return selfsup.pretrain(images, **options, precision="float16", out=tmp_path / "run", **more)

    checkpoint = train(until=2).folder / "checkpoint" / "latest.safetensors"
    tensors, about = load_tensors(checkpoint)
    tensors["precision.scale"] = torch.tensor(1024.0)
    save_tensors(checkpoint, tensors, about)
    train()
    assert float(load_tensors(checkpoint)[0]["precision.scale"]) == 1024
    save_tensors(checkpoint, tensors | {"precision.other": torch.tensor(1)}, about)
    (tmp_path / "run" / "encoder.safetensors").unlink()
    with pytest.raises(UserError, match="does not fit this precision"):
        train()
