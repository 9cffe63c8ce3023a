"""The device of a run: Lightning Fabric on it, and how freed memory is reused."""

from __future__ import annotations

import ctypes
import platform
from datetime import timedelta

from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.strategy import Strategy
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from selfsup.base.processes import limit_threads
from selfsup.base.quiet import quiet_libraries
from selfsup.base.ranks import Launched, launched
from selfsup.errors import RunFailed, UserError, unknown
from selfsup.train.failures import others_lost
from selfsup.train.launch import Processes
from selfsup.train.precision import plugin, resolve_precision
from selfsup.train.sharding import shards

DEVICES = ("auto", "cpu", "cuda", "mps")
TIMEOUT = 600.0  # seconds that processes wait for one another: longer than measuring speed or saving may take
MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # of malloc.h
KEPT = 2**30  # bytes: larger blocks, and free memory beyond this, go back to the system


class Replicas(DDPStrategy):
    """DDP that sends buffers once, when a run begins, and not before every forward pass.

    Every process computes the same ones (`tests/test_ranks.py`): memory banks, queues, centres, batch statistics.
    """

    def setup_module(self, module: nn.Module) -> DistributedDataParallel:
        """Return the module that averages gradients."""
        replica = super().setup_module(module)
        replica.broadcast_buffers = False  # as an argument it would also leave out the first time
        return replica


def make_fabric(device: str, precision: str, shard_weights: bool = False) -> Fabric:
    """Return Lightning Fabric on a device (auto, cpu, cuda, mps), in as many processes as torchrun or srun started.

    They wait for each other for at most `TIMEOUT` seconds; after that one of them is taken to hang, and the run ends.
    With `shard_weights` several processes divide among them what is trained (`train.sharding`).

    Raises `UserError` if the device is not available, `RunFailed` if the other processes do not come.
    """
    here = launched()
    if device not in DEVICES:
        raise unknown("device", device, DEVICES)
    if here.world % here.local_world:
        raise UserError(f"{here.world} processes cannot be {here.local_world} on each machine: start equally many")
    strategy: Strategy | str = "auto"
    if here.world > 1:
        wait = timedelta(seconds=TIMEOUT)
        strategy = shards(here.world, wait) if shard_weights else Replicas(timeout=wait)
    with quiet_libraries():
        try:
            probe = Fabric(accelerator=device, devices=1, plugins=Processes(Launched()))
            resolved = resolve_precision(precision, probe.device)
            if shard_weights and resolved == "float16":
                raise UserError("--shard-weights is for --precision bfloat16 or float32, not for float16")
            arithmetic = plugin(resolved, probe.device)
            fabric = Fabric(
                accelerator=device,
                devices=here.local_world,
                num_nodes=here.world // here.local_world,
                strategy=strategy,
                plugins=[Processes(here), arithmetic],
            )
            fabric.launch()
        except (RuntimeError, ValueError) as error:
            if others_lost(error):
                raise RunFailed(
                    f"the {here.world} processes of this run did not all come to {Processes(here).main_address}, port "
                    f"{Processes(here).main_port}, within {TIMEOUT:.0f} s: {str(error).splitlines()[0]}"
                ) from error
            absent = "accelerator is not available" in str(error)
            reason = "torch sees none on this machine; see selfsup doctor" if absent else str(error).splitlines()[0]
            raise UserError(f"cannot use --device {device}: {reason}") from error
    if fabric.device.type == "cpu":
        keep_memory()
        limit_threads()
    return fabric


def keep_memory() -> bool:
    """Let this process reuse the memory that it frees, up to 1 GiB; return whether the C library (glibc) supports that.

    Otherwise the system takes back and clears the pages of every large tensor in every step, which takes up to a third
    of the time of a small network on a CPU.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    large = mallopt(MMAP_THRESHOLD, KEPT) or mallopt(MMAP_THRESHOLD, 2**25)  # glibc before 2.35 accepts no more
    return bool(large and mallopt(TRIM_THRESHOLD, KEPT))
