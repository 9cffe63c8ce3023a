"""The processes of one run: which of them this is, by the variables that torchrun or srun set for it.

Variables alone do not make several processes: inside a Slurm allocation without srun, or with RANK or WORLD_SIZE left
over from something else, a command is one process.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple


class Launched(NamedTuple):
    """This process among those of one run, and among those on this machine; `by` torchrun, srun or nobody (empty)."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    by: str = ""


TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
SRUN = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE")


def launched(environment: Mapping[str, str] = os.environ) -> Launched:
    """Return the place of this process in the run."""
    if environment.get("MASTER_ADDR") and environment.get("MASTER_PORT"):
        numbers = [_number(environment.get(name)) for name in TORCHRUN]
        rank, world, local, on_machine = numbers
        if rank is not None and world is not None and rank < world:
            return Launched(rank, world, local or 0, on_machine or 1, "torchrun")
    rank, world, local, on_machine = (_number(environment.get(name)) for name in SRUN)
    if world is not None and world > 1 and rank is not None and rank < world:
        return Launched(rank, world, local or 0, on_machine or 1, "srun")
    return Launched()


def is_first() -> bool:
    """Return whether this is the process that speaks and writes."""
    return launched().rank == 0


def _number(text: str | None) -> int | None:
    """Return the whole number at the beginning of a variable: `2(x3)` of Slurm is 2 on each of 3 machines."""
    digits = (text or "").strip().partition("(")[0]
    return int(digits) if digits.isdecimal() else None
