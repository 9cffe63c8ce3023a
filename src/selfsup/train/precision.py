"""The precision that suits a machine, and the time that it saves."""

from __future__ import annotations

import copy
import time
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision, Precision

from selfsup.base.ranks import Launched
from selfsup.base.turns import own_turn
from selfsup.errors import unknown
from selfsup.source import Source
from selfsup.task import Task, Views
from selfsup.train.channels_last import channels_last
from selfsup.train.launch import Processes
from selfsup.train.micro import forward_backward
from selfsup.views.loader import batches, threads_for
from selfsup.views.order import order

PRECISIONS = ("float32", "bfloat16", "float16")


def resolve_precision(precision: str, device: torch.device) -> str:
    """Return `float32`, `bfloat16` or `float16`; `auto` is bfloat16 if the device supports it natively."""
    if precision in PRECISIONS:
        return precision
    if precision != "auto":
        raise unknown("precision", precision, ["auto", *PRECISIONS])
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.get_device_capability(device)[0] >= 8 else "float32"
    return "bfloat16" if device.type == "cpu" and _cpu_has_bfloat16() else "float32"


class Mixed(MixedPrecision):
    """Layers compute in 16 bits; images stay in float32, because they are targets too (Fabric would convert them)."""

    def convert_input(self, data: Any) -> Any:
        """Return the data unchanged."""
        return data


def plugin(precision: str, device: torch.device) -> Precision:
    """Return Fabric's plugin for a resolved precision."""
    if precision == "float32":
        return Precision()
    return Mixed("bf16-mixed" if precision == "bfloat16" else "16-mixed", device.type)


def _cpu_has_bfloat16() -> bool:
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    avx512 = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()  # torch before 2.12 has no get_capabilities
    return bool(avx512 or any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")))


def step_seconds(
    task: Task,
    source: Source,
    views: Views,
    fabric: Fabric,
    batch_size: int,
    seed: int,
    seconds: float = 5.0,
    micro_batch: int | None = None,
) -> float:
    """Return the seconds that a training step takes, data included, measured for about `seconds`.

    A batch is made in one thread here. With a GPU a run uses `threads_for` threads and waits for the slower of
    the two; a CPU does both itself. It is measured on a copy: `task` stays as it is.
    """
    measured = copy.deepcopy(task)
    channels_last(measured)
    model = fabric.setup_module(measured)
    views = views.for_device(fabric.device)
    stream = batches(source, views, batch_size=batch_size, seed=seed, start=0, steps=6, workers=0)
    making: list[float] = []
    computing: list[float] = []
    gpu, began = fabric.device.type == "cuda", time.monotonic()
    with own_turn(), torch.random.fork_rng(devices=[]):
        for fetched in stream:
            making.append(time.monotonic() - began)
            batch = views.finish(fabric.to_device(fetched.batch))
            float(forward_backward(model, measured, batch, fabric, micro_batch).value)  # waits for the device
            computing.append(time.monotonic() - began - making[-1])
            began = time.monotonic()
            spent: Any = fabric.all_reduce(
                torch.tensor(sum(making) + sum(computing)).to(fabric.device), reduce_op="max"
            )
            if spent > seconds:  # processes that sum gradients stop together
                break
    made, computed = min(making), min(computing)  # the first also compiles
    return max(made / threads_for(source, pin=True), computed) if gpu else made + computed


def bfloat16_saving(task: Task, source: Source, views: Views, fabric: Fabric, batch_size: int, seed: int) -> float:
    """Return how many times faster a step is in the precision of `fabric` than in float32, on a few samples."""
    sample = views.fetch(source, order(seed, 0, len(source), 0, 1), seed, 0).batch
    numbers = sum(tensor.numel() for tensor in sample.values())
    few = min(batch_size, max(2, 2**18 // numbers))
    plain = Fabric(accelerator=fabric.device.type, devices=1, precision="32-true", plugins=Processes(Launched()))
    slow, fast = (step_seconds(task, source, views, on, few, seed, seconds=2.0) for on in (plain, fabric))
    return slow / fast
