"""The online probe sees the run and leaves no trace in it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import selfsup
from selfsup.data.image import Arrays
from selfsup.data.open import open_data
from selfsup.errors import UserError
from selfsup.evaluation import online
from selfsup.evaluation.online import OnlineProbe
from selfsup.source import Labels
from selfsup.train.checkpoint import load_tensors


def test_weights_are_the_same_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(online, "TIME_FRACTION", 1e9)  # measure at every log point
    options = {"encoder": "convnet", "steps": 12, "batch_size": 16, "quiet": True}
    selfsup.pretrain("digits", out=tmp_path / "plain", **options)
    run = selfsup.pretrain("digits", out=tmp_path / "watched", probe="digits", **options)
    for name in ("encoder.safetensors", "checkpoint/latest.safetensors"):
        plain, watched = (load_tensors(tmp_path / folder / name)[0] for folder in ("plain", "watched"))
        assert plain.keys() == watched.keys()
        assert all(torch.equal(plain[key], watched[key]) for key in plain), name
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    seen = [line["probe"] for line in lines if "probe" in line]
    assert len(seen) == len(lines) == 12
    assert seen[-1] > 0.5, "digits are easy even for an encoder that is hardly trained"
    before = (tmp_path / "plain" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss"] for line in before] == [line["loss"] for line in lines]
    recipes = (json.loads((tmp_path / folder / "recipe.json").read_text()) for folder in ("plain", "watched"))
    first, second = recipes
    assert {**first, "command": 0} == {**second, "command": 0}, "a run resumes with or without it"


def test_it_keeps_to_its_fraction_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 8))
    probe = OnlineProbe(open_data("digits"), open_data("digits").spec(), torch.device("cpu"), 0)
    assert probe.measure(encoder, 1, last=False) == {}, "too early"
    assert set(probe.measure(encoder, 1, last=True)) == {"probe"}, "the last step is always measured"
    assert probe.measure(encoder, 1, last=False) == {}
    probe.began -= 1000
    assert set(probe.measure(encoder, 1, last=False)) == {"probe"}
    assert encoder.training, "as it was"


def test_modes_are_restored_one_by_one() -> None:
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.BatchNorm1d(64), torch.nn.Dropout())
    encoder[1].eval()
    before = encoder[1].running_mean.clone()
    OnlineProbe(open_data("digits"), open_data("digits").spec(), torch.device("cpu"), 0).measure(encoder, 1, last=True)
    assert [module.training for module in encoder] == [True, False, True]
    assert torch.equal(before, encoder[1].running_mean)


@pytest.mark.parametrize(
    ("names", "words"), [([None] * 20, "has no labels"), (["a"] * 20, "two classes"), (range(20), "file names")]
)
def test_data_that_cannot_be_probed_are_one_line(tmp_path: Path, names: list, words: str) -> None:
    data = Arrays(np.zeros((20, 8, 8), np.uint8), Labels.of(names))
    with pytest.raises(UserError, match=words):
        selfsup.pretrain("digits", encoder="convnet", steps=1, out=tmp_path / "run", probe=data, quiet=True)
    assert not (tmp_path / "run").exists()


def test_it_is_read_by_neighbours_once_an_epoch(tmp_path: Path) -> None:
    options = {"encoder": "convnet", "epochs": 3, "batch_size": 400, "probe_reader": "knn", "probe_every": 1}
    run = selfsup.pretrain("digits", probe="digits", out=tmp_path / "run", quiet=True, **options)
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "probe" in line] == [4, 8, 12]
    with pytest.raises(UserError, match="unknown reader of the probe"):
        selfsup.pretrain("digits", probe="digits", out=tmp_path / "other", probe_reader="tree")
