"""A command in several processes of one run, copies of this one, as torchrun would start them."""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from selfsup.cli import main
from selfsup.task import Task
from selfsup.tasks.image.simclr import SimCLR
from selfsup.train import device, fit

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
    task: type[Task] = SimCLR,
) -> tuple[list[int], list[str]]:
    """Run a command in `world` copies of this process as torchrun would; return exit statuses and what each said.

    `stop` (rank, step, signal): that process sends itself a signal after so many steps of `task`; after none it never
    begins.
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
        done, plain = 0, task.after_step

        def after_step(trained: Task) -> None:
            nonlocal done
            plain(trained)
            done += 1
            if stop and stop[:2] == (rank, done):
                os.kill(os.getpid(), stop[2])

        if stop and stop[:2] == (rank, 0):
            os._exit(0)
        task.after_step = after_step
        os._exit(main(words(rank).split()))

    processes = [HERE.Process(target=work, args=(rank,)) for rank in range(world)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    codes = [process.exitcode for process in processes]
    for process in processes:
        if process.is_alive():
            process.kill()
    return [-99 if code is None else code for code in codes], [
        (place / f"said-{rank}").read_text() for rank in range(world)
    ]
