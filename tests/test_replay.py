"""A step made again: the same samples and the same loss, and the step at which a loss became NaN."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import selfsup
from selfsup.errors import RunFailed, UserError
from selfsup.tasks.image.rotation import Rotation
from selfsup.train import fit as fit_module
from selfsup.train.checkpoint import load_tensors
from selfsup.views.loader import batches

RNG = np.random.default_rng(0)


class Exploding(Rotation):
    """Rotation whose loss is NaN at the fifth step."""

    def loss(self, batch):
        loss = super().loss(batch)
        return loss._replace(value=loss.value * math.nan) if self.progress >= 0.5 else loss


class Overflowing(Rotation):
    """Rotation with a finite loss at the fifth step, whose gradient is not."""

    def loss(self, batch):
        loss = super().loss(batch)
        weight = self.head[0].weight.sum()
        extra = (weight - weight.detach()).abs().sqrt()  # 0, with an infinite slope
        return loss._replace(value=loss.value + extra) if self.progress >= 0.5 else loss


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for number in range(40):
        Image.fromarray(RNG.integers(0, 255, (12, 12, 3), dtype=np.uint8)).save(folder / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> selfsup.Run:
    """Return a run of moco, with an EMA encoder and a queue, stopped at step 5 of 8."""
    return selfsup.pretrain(
        folder, task="moco", encoder="convnet", steps=8, batch_size=8, queue_size=16, seed=3, until=5, quiet=True,
        out=tmp_path_factory.mktemp("runs") / "moco",
    )  # fmt: skip


def batches_of(run: selfsup.Run, folder: Path):
    """Return the first and the third batch, as the loader makes them."""
    source, views = selfsup.open_data(folder), run.fresh_task().views(run.spec)
    options = {"batch_size": 8, "seed": 0, "block": 8, "workers": 0}
    return [next(batches(source, views, **options, start=step, steps=step + 1)) for step in (0, 2)]


def lines(run: selfsup.Run) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]


def test_a_step_has_the_loss_that_was_logged_and_leaves_the_run_as_it_was(run: selfsup.Run, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    for step in (1, 4, 5):
        found = selfsup.replay(run, step=step, out=tmp_path / "r.png", count=4, quiet=True)
        assert found.loss == pytest.approx(lines(run)[step - 1]["loss"], abs=1e-5)
        assert (found.logged, found.first, found.last) == (lines(run)[step - 1]["loss"], step, step)
        assert len(found.paths) == 8
        assert found.image.stat().st_size
    assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before


def test_an_epoch_replayed_is_every_sample_once_and_later_steps_go_on_from_the_checkpoint(
    run: selfsup.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfsup.reports.replay.SHORT", -1.0)  # as in a run of days
    steps = [selfsup.replay(run, step=step, out=tmp_path / "r.png", quiet=True) for step in range(1, 6)]
    assert sorted(path for one in steps for path in one.paths) == [f"{i:02d}.png" for i in range(40)]
    assert all(one.loss is None and "--from-start does so" in one.note for one in steps)
    after = selfsup.replay(run, step=7, out=tmp_path / "r.png", from_start=True, quiet=True)
    monkeypatch.setattr("selfsup.reports.replay.SHORT", 60.0)
    assert selfsup.replay(run, step=7, out=tmp_path / "r.png", quiet=True).loss == after.loss, "from the checkpoint"
    assert after.logged is None


def test_blocks_of_neighbours_and_cheaper_views_are_those_of_the_run(folder: Path, tmp_path: Path) -> None:
    run = selfsup.pretrain(
        folder, task="simclr", encoder="vit-mini", size=16, steps=3, batch_size=8, block=8, low_res_first=0.4,
        drop_tokens=0.25, quiet=True, out=tmp_path / "run",
    )  # fmt: skip
    seen = []
    for step in (1, 3):
        found = selfsup.replay(run, step=step, out=tmp_path / "r.png", quiet=True)
        assert found.loss == pytest.approx(lines(run)[step - 1]["loss"], abs=1e-5)
        seen.append(found.paths)
    order = np.concatenate([b.batch["index"].numpy() for b in batches_of(run, folder)])
    assert [f"{i:02d}.png" for i in order] == list(seen[0] + seen[1])


def test_nan_comes_with_the_command_that_repeats_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_module, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(fit_module, "SAVE_SHARE", 1e9)
    out, options = tmp_path / "r", {"encoder": "convnet", "steps": 8, "batch_size": 8, "quiet": True}
    with pytest.raises(RunFailed, match=rf"nan at step 5 .*of step 4; .*selfsup replay {out} --step 5$"):
        selfsup.pretrain(folder, task=Exploding, **options, out=out)
    tensors, about = load_tensors(out / "checkpoint" / "latest.safetensors")
    assert about["step"] == 4
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())
    found = selfsup.replay(out, step=5, task=Exploding, out=tmp_path / "r.png", quiet=True)
    assert found.loss is not None
    assert math.isnan(found.loss)
    assert found.as_json()["loss"] == "nan"
    with pytest.raises(RunFailed, match="nan at step 5 already"):
        selfsup.replay(out, step=6, task=Exploding, out=tmp_path / "r.png", quiet=True)
    with pytest.raises(UserError, match="Exploding is not a task of selfsup itself: give its class"):
        selfsup.replay(out, step=5, out=tmp_path / "r.png", quiet=True)


def test_weights_that_are_not_finite_are_not_saved(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_module, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(fit_module, "SAVE_SHARE", 1e9)
    with pytest.raises(RunFailed, match=r"a weight is not finite after step 5, .* of step 4; .* --step 5$"):
        selfsup.pretrain(
            folder, task=Overflowing, encoder="convnet", steps=8, batch_size=8, quiet=True, out=tmp_path / "r"
        )
    assert load_tensors(tmp_path / "r" / "checkpoint" / "latest.safetensors")[1]["step"] == 4


def test_what_cannot_be_replayed_is_said(run: selfsup.Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.png"
    with pytest.raises(UserError, match=r"--step must be from 1 to 8, the steps of .*, not 9"):
        selfsup.replay(run, step=9, out=out)
    with pytest.raises(UserError, match=r"digits is not what .* was trained on, or has changed: give that as --data"):
        selfsup.replay(run, step=1, data="digits", out=out)
    with pytest.raises(UserError, match="--step must be a whole number"):
        selfsup.replay(run, step=0, out=out)
    assert not out.exists()
