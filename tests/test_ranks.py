"""N processes compute the loss, the gradient and the buffers of one, for the same global batch."""

import copy
import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from selfsup.data.image import Arrays
from selfsup.encoders import build_encoder
from selfsup.nn.norm import synchronised
from selfsup.tasks import TASKS, find_task
from selfsup.tasks.resolve import resolve_task
from test_contract import OPTIONS, SPEC, first_batch, images, texts

__all__ = ["images"]  # the fixture, by its name


def without_batch_norm(encoder: nn.Module) -> nn.Module:
    """Replace BatchNorm, whose statistics a micro-batch does not have, and dropout, which is drawn by place."""
    for name, module in list(encoder.named_modules()):
        parent = encoder.get_submodule(name.rpartition(".")[0])
        if isinstance(module, nn.BatchNorm2d):
            setattr(parent, name.rpartition(".")[2], nn.GroupNorm(4, module.num_features))
        elif isinstance(module, nn.Dropout):
            module.p = 0.0
    return encoder


def built(name: str, source):
    torch.manual_seed(0)
    _, kind, options, _ = resolve_task(name, source, OPTIONS.get(name, {}))
    spec = SPEC if isinstance(source, Arrays) else source.spec(32, "wordpiece:400")
    return kind(without_batch_norm(build_encoder(kind.small_encoder, spec)), **options)


def step(task, batch, device: str):
    """Return the loss, the gradients and, after `after_step`, the buffers; as DDP does, the mean over the processes."""
    task = copy.deepcopy(task).double().to(device).train()
    task.encoder = synchronised(task.encoder, torch.device(device))
    task.progress = 0.5
    batch = {key: (value.double() if value.is_floating_point() else value).to(device) for key, value in batch.items()}
    value = task.loss(batch).value
    value.backward()
    found = {"loss": value.detach()} | {k: p.grad for k, p in task.named_parameters() if p.grad is not None}
    if dist.is_initialized():
        for tensor in found.values():
            dist.all_reduce(tensor.div_(dist.get_world_size()))
    task.after_step()
    return found | {f"buffer {k}": b for k, b in task.named_buffers()}


def work(rank: int, jobs, wanted, failures, port: int, device: str) -> None:
    torch.set_num_threads(1)
    for world in (4, 2):
        if rank < world:
            address = f"tcp://127.0.0.1:{port + world}"
            dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world)
            for name, (task, batch) in jobs.items():
                found = step(task, {key: value[rank::world] for key, value in batch.items()}, device)
                told = compare(found, wanted[name])
                if told:
                    failures.put(f"{name}, {world} processes, {told}")
            dist.destroy_process_group()


def compare(found, wanted) -> str:
    if found.keys() != wanted.keys():
        return f"other tensors: {sorted(found.keys() ^ wanted.keys())}"
    for key, value in wanted.items():
        error = (found[key].double().cpu() - value.double()).abs().max() / value.double().abs().max().clamp_min(1e-6)
        if error > 1e-5:
            return f"{key}: off by {error:.1e} of the largest"
    return ""


ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=ON_GPU, id="gpu")])
def test_n_processes_are_one(device: str, images: Arrays) -> None:
    jobs, wanted = {}, {}
    for name in TASKS:
        source = texts() if find_task(name).kind == "text" else images
        task = built(name, source)
        jobs[name] = task, dict(first_batch(task, source, 16))
    for encoder in ("convnet",) if device == "cpu" else ("convnet", "resnet18", "efficientnet_b0"):
        task = find_task("simclr")(build_encoder(encoder, SPEC))  # with its BatchNorm
        jobs[encoder] = task, dict(first_batch(task, images, 16))
    for name, job in jobs.items():
        wanted[name] = {key: value.cpu() for key, value in step(*job, device).items()}
    start = "fork" if device == "cpu" else "spawn"  # four more imports of everything take longer than the test
    failures = mp.get_context(start).SimpleQueue()
    arguments = jobs, wanted, failures, 29500 + os.getpid() % 500, device
    mp.start_processes(work, arguments, 4, start_method=start)
    told = []
    while not failures.empty():
        told.append(failures.get())
    assert not told, "\n".join(told)
