"""A run that goes on with another number of processes: 1, 4, then 2, each lot killed; and processes that disagree."""

import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from selfsup.cli import main
from selfsup.task import Task
from selfsup.tasks.image.simclr import SimCLR
from selfsup.train import device, fit
from selfsup.train.checkpoint import CHECKPOINT, load_tensors

WORDS = "--task simclr --encoder nature-cnn --steps 8 --batch-size 16 --optimizer sgd --quiet --workers 0 --log none"
HERE = multiprocessing.get_context("fork")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def launch(
    place: Path,
    words: Callable[[int], str],
    world: int,
    stop: tuple[int, int, int] | None = None,
    timeout: float = 20.0,
) -> tuple[list[int], list[str]]:
    """Run a command in `world` copies of this process as torchrun would; return exit statuses and what each said.

    `stop` (rank, step, signal): that process sends itself a signal after so many steps; after none it never begins.
    """
    port = free_port()

    def work(rank: int) -> None:
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
        sys.stderr = (place / f"said-{rank}").open("w", buffering=1)
        torch.set_num_threads(1)
        device.TIMEOUT, fit.SAVE_SECONDS, fit.SAVE_SHARE = timeout, 0.0, 1e9
        done = 0

        def after_step(task: Task) -> None:
            nonlocal done
            done += 1
            if stop and stop[:2] == (rank, done):
                os.kill(os.getpid(), stop[2])

        if stop and stop[:2] == (rank, 0):
            os._exit(0)
        SimCLR.after_step = after_step
        os._exit(main(words(rank).split()))

    processes = [HERE.Process(target=work, args=(rank,)) for rank in range(world)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    codes = [process.exitcode for process in processes]
    for process in processes:
        if process.is_alive():
            process.kill()
    return [-99 if code is None else code for code in codes], [
        (place / f"said-{rank}").read_text() for rank in range(world)
    ]


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
