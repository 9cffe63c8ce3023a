"""Runs of several seeds in one call, and what `evaluate` says of them together."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import selfsup
from selfsup.cli import main
from selfsup.errors import UserError
from selfsup.evaluation.draws import crossed, interval
from selfsup.evaluation.result import Evaluation
from selfsup.evaluation.seeds import over_seeds
from selfsup.runs import open_runs
from selfsup.train.checkpoint import load_tensors

SMALL = {"encoder": "convnet", "steps": 3, "batch_size": 16, "quiet": True}


def few(shots: str = "1,all") -> dict[str, Any]:
    data = selfsup.open_data("digits").take(np.arange(200))
    return {"data": data, "shots": shots, "protocol": "linear", "draws": 2, "quiet": True}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> selfsup.Runs:
    return selfsup.pretrain("digits", seeds=2, seed=4, out=tmp_path_factory.mktemp("seeds") / "out", **SMALL)


@pytest.fixture(scope="module")
def together(runs: selfsup.Runs) -> Evaluation:
    return selfsup.evaluate(runs, scratch=False, **few())


def test_each_seed_is_a_run_of_its_own(runs: selfsup.Runs, tmp_path: Path) -> None:
    assert [run.folder.name for run in runs] == ["seed-4", "seed-5"]
    alone = selfsup.pretrain("digits", seed=5, out=tmp_path / "alone", **SMALL)
    both = [load_tensors(run.folder / "encoder.safetensors")[0] for run in (alone, *runs)]
    assert all((both[0][key] == value).all() for key, value in both[2].items())
    assert any((both[0][key] != value).any() for key, value in both[1].items())
    again = selfsup.pretrain("digits", seeds=2, seed=4, out=runs.folder, **SMALL)
    assert [run.folder for run in again] == [run.folder for run in runs], "finished ones are returned"
    assert f"selfsup evaluate {runs.folder} --data" in str(runs)


def test_intervals_are_over_seeds_and_draws(runs: selfsup.Runs, together: Evaluation) -> None:
    alone = [Evaluation.load(run.folder / "evaluation.json") for run in runs]
    one = together.score("rotation", "linear", 1)
    assert one.grid.shape == (2, 2)
    assert one.values == tuple(value for each in alone for value in each.score("rotation", "linear", 1).values)
    assert one.mean == pytest.approx(np.mean([each.score("rotation", "linear", 1).mean for each in alone]))
    assert one.half == crossed(one.grid)
    whole = together.score("rotation", "linear", None)
    assert whole.half == pytest.approx(interval(whole.values).half), "with all labels only seeds differ"
    pixels = together.score("raw pixels", "linear", 1)
    assert pixels.half == pytest.approx(interval(alone[0].score("raw pixels", "linear", 1).values).half)
    assert "over 2 seeds of pretraining and 2 draws of the labels" in " ".join(str(together).split())
    assert together.verdict
    saved = Evaluation.load(runs.folder / "evaluation.json")
    assert str(saved) == str(together)
    assert set(together.to_pandas()["seeds"]) == {2}


def test_a_folder_and_a_list_are_the_same_runs(
    runs: selfsup.Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = few()["data"]
    np.savez(tmp_path / "few.npz", x=np.stack([data.read(i) for i in range(100)]), y=data.labels.ids[:100])
    words = [
        "--data",
        str(tmp_path / "few.npz"),
        "--shots",
        "1",
        "--protocol",
        "linear",
        "--draws",
        "2",
        "--no-scratch",
    ]
    assert main(["evaluate", str(runs.folder), *words, "--quiet", "--json"]) == 0
    assert {score["seeds"] for score in json.loads(capsys.readouterr().out)["scores"]} == {2}
    assert [run.folder for run in open_runs([str(run.folder) for run in runs])] == [run.folder for run in runs]


def test_what_does_not_depend_on_pretraining_is_done_once(runs: selfsup.Runs) -> None:
    result = selfsup.evaluate(runs, **few("1"))
    scratch, own = result.score("from scratch", "trained", 1), result.score("rotation", "linear", 1)
    assert (scratch.seeds, own.seeds) == (1, 2)
    assert scratch.half == pytest.approx(interval(scratch.values).half)
    assert result.verdict


def test_the_interval_covers_seeds_and_draws_alike() -> None:
    draws, seeds = np.random.default_rng(0).normal(size=(2, 5))
    assert crossed(draws[None]) == pytest.approx(interval(draws).half)
    assert crossed(seeds[:, None]) == pytest.approx(interval(seeds).half)
    both = crossed(seeds[:, None] + draws[None])
    assert both > max(interval(draws).half, interval(seeds).half) * 0.9
    assert crossed(np.ones((3, 3))) == 0
    assert np.isnan(crossed(np.ones((1, 1))))


def test_runs_that_do_not_belong_together(runs: selfsup.Runs, one_run: Path, tmp_path: Path) -> None:
    for given, words in {
        (runs[0], runs[0]): "each another one, not 4, 4",
        (): "not none at all",
        (runs[0], selfsup.pretrain("digits", task="jigsaw", out=tmp_path / "other", **SMALL)): "of one task",
    }.items():
        with pytest.raises(UserError, match=words):
            selfsup.evaluate(given, **few())
    with pytest.raises(UserError, match="is one run"):
        selfsup.pretrain("digits", seeds=2, out=one_run, **SMALL)
    with pytest.raises(UserError, match="for one run, not for several"):
        selfsup.evaluate(runs, data="digits", target="objects")
    assert over_seeds([Evaluation.load(runs[0].folder / "evaluation.json")]).about["seeds"] == 1
