"""N processes compute the loss, the gradient and the buffers of one, for the same global batch."""

import copy

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from selfsup.base.distributed import from_first
from selfsup.encoders import build_encoder
from selfsup.nn.norm import synchronised
from selfsup.tasks import TASKS, find_task
from selfsup.train.device import Replicas
from support.sources import images, toy
from support.tasks import SPEC, built, compare, first_batch

FOUR = ("simclr", "moco", "swav", "barlow", "dinov2", "bert", "convnet")  # by four processes too


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
        sums = torch.cat([tensor.flatten() for tensor in found.values()]).div_(dist.get_world_size())
        dist.all_reduce(sums)  # all in one message
        sizes = [tensor.numel() for tensor in found.values()]
        parts = zip(found.items(), sums.split(sizes), strict=True)
        found = {key: part.view_as(tensor) for (key, tensor), part in parts}
    task.after_step()
    return found | {f"buffer {k}": b for k, b in task.named_buffers()}


def work(rank: int, jobs, wanted, failures, ports, device: str) -> None:
    torch.set_num_threads(1)
    for world, port in ports.items():
        if rank < world:
            store = dist.TCPStore("127.0.0.1", port, is_master=False)
            dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
            if from_first(torch.tensor(rank)):
                failures.put(f"rank {rank} keeps what it computed itself")
            for name in jobs if world == 2 else FOUR:
                task, batch = jobs[name]
                found = step(task, {key: value[rank::world] for key, value in batch.items()}, device)
                told = compare(found, wanted[name])
                if told:
                    failures.put(f"{name}, {world} processes, {told}")
            dist.destroy_process_group()


def test_buffers_are_sent_once() -> None:
    """Memory banks are large; a forward pass that sent them again would also undo what the others computed."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        replica = Replicas(parallel_devices=[torch.device("cpu")]).setup_module(built("instance", images()))
        assert dict(replica.named_buffers())["module.bank"].numel()
        assert not replica.broadcast_buffers
    finally:
        dist.destroy_process_group()


ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=ON_GPU, id="gpu")])
def test_n_processes_are_one(device: str) -> None:
    jobs, wanted, toys = {}, {}, images()
    for name in TASKS:
        source = toys if find_task(name).kind in ("image", "any") else toy(find_task(name).kind)
        task = built(name, source)
        jobs[name] = task, dict(first_batch(task, source, 16 if name in FOUR else 8))
    for encoder in ("convnet",) if device == "cpu" else ("convnet", "resnet18", "efficientnet_b0"):
        task = find_task("simclr")(build_encoder(encoder, SPEC))  # with its BatchNorm
        jobs[encoder] = task, dict(first_batch(task, toys, 16))
    for name, job in jobs.items():
        wanted[name] = {key: value.cpu() for key, value in step(*job, device).items()}
    start = "fork" if device == "cpu" else "spawn"  # four more imports of everything take longer than the test
    failures = mp.get_context(start).SimpleQueue()
    stores = {world: dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False) for world in (4, 2)}
    ports = {world: store.port for world, store in stores.items()}  # free ones, which the kernel chose
    arguments = jobs, wanted, failures, ports, device
    mp.start_processes(work, arguments, 4, start_method=start)
    told = []
    while not failures.empty():
        told.append(failures.get())
    assert not told, "\n".join(told)
