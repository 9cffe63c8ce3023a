"""A run that goes on with another number of processes: 1, 4, then 2, each lot killed; and processes that disagree."""

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from selfsup.cli import main
from selfsup.train.checkpoint import CHECKPOINT, load_tensors
from support.ranks import launch

WORDS = "--task simclr --encoder nature-cnn --steps 8 --batch-size 16 --optimizer sgd --quiet --workers 0 --log none"


def lines(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "x.npz"
    np.savez(path, x=np.random.default_rng(0).integers(0, 255, (48, 16, 16, 3), dtype=np.uint8))
    return path


def test_killed_on_one_four_and_two_processes_it_ends_as_one_that_was_never_stopped(data: Path, tmp_path: Path) -> None:
    def run(out: str, world: int, stop: tuple[int, int, int] | None = None) -> tuple[list[int], list[str]]:
        return launch(tmp_path, lambda rank: f"pretrain {data} {WORDS} --out {tmp_path / out}", world, stop)

    assert main(f"pretrain {data} {WORDS} --out {tmp_path / 'whole'}".split()) == 0  # here: copies need not import it
    assert run("elastic", 1, (0, 3, signal.SIGKILL))[0] == [-signal.SIGKILL]
    began = time.monotonic()
    codes, said = run("elastic", 4, (2, 3, signal.SIGKILL))
    assert time.monotonic() - began < 40, "the others end in time"
    assert codes == [1, 1, -signal.SIGKILL, 1]
    assert "another process of this run ended or hangs, so this one ends after step" in said[0]
    assert "run the same command again" in said[0]
    assert len(said[0].splitlines()) == 1
    codes, said = run("elastic", 2, (1, 1, signal.SIGUSR1))
    assert codes == [128 + signal.SIGUSR1] * 2
    assert "by SIGUSR1: saved in" in said[0]
    assert run("elastic", 2)[0] == [0, 0]
    one, other = (load_tensors(tmp_path / out / CHECKPOINT)[0] for out in ("whole", "elastic"))
    for name, tensor in one.items():
        torch.testing.assert_close(
            other[name], tensor, rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
    losses = [[line["loss"] for line in lines(tmp_path / out)] for out in ("whole", "elastic")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert len(losses[0]) == 8


def test_a_process_with_other_data_is_refused_by_all(data: Path, tmp_path: Path) -> None:
    with np.load(data) as file:
        x = file["x"].copy()
    x[5, 0, 0, 0] ^= 1
    other = tmp_path / data.name
    np.savez(other, x=x)
    out = tmp_path / "run"
    codes, said = launch(tmp_path, lambda rank: f"pretrain {other if rank else data} {WORDS} --out {out}", 2)
    assert codes == [2, 2]
    assert "processes 0 and 1 of this run differ in the data and options: data." in said[0]
    assert "fingerprint" in said[0]
    assert not (out / "recipe.json").exists()


def test_processes_without_a_common_folder_are_refused(data: Path, tmp_path: Path) -> None:
    outs = [tmp_path / "one", tmp_path / "two"]
    launch(tmp_path, lambda rank: f"pretrain {data} {WORDS} --until 1 --out {outs[0]}", 1)
    codes, said = launch(tmp_path, lambda rank: f"pretrain {data} {WORDS} --out {outs[rank]}", 2)
    assert codes == [2, 2]
    assert "processes 0 and 1 of this run differ in" in said[0]
    assert "started: True and False" in said[0]


def test_a_process_that_never_comes_ends_the_others_in_time(data: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    codes, said = launch(tmp_path, lambda rank: f"pretrain {data} {WORDS} --out {tmp_path / 'run'}", 2, (1, 0, 0), 2.0)
    assert codes == [1, 0]
    assert "the 2 processes of this run did not all come to 127.0.0.1, port" in said[0]
    assert time.monotonic() - began < 40
    assert not (tmp_path / "run").exists()
