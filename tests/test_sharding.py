"""FSDP2: several processes divide weights, gradients and moments, and end with the weights of one."""

import copy
import json
import signal
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import save
from torch.distributed.device_mesh import init_device_mesh

import selfsup
from selfsup.cli import main
from selfsup.encoders import build_encoder
from selfsup.errors import RunFailed, UserError
from selfsup.nn.lora import add_lora, merged_state
from selfsup.nn.norm import synchronised
from selfsup.spec import ImageSpec
from selfsup.tasks import find_task
from selfsup.tasks.image.moco import MoCo
from selfsup.train.checkpoint import CHECKPOINT, load_tensors, save_tensors
from selfsup.train.device import make_fabric
from selfsup.train.failures import one_line
from selfsup.train.micro import encoders_in_parts
from selfsup.train.optim import build_optimizer
from selfsup.train.sharding import divide, own, whole
from support.ranks import launch
from support.sources import images

SPEC = ImageSpec.of(16, 3)
WORDS = (
    "--task moco --queue-size 16 --encoder nature-cnn --steps 4 --batch-size 8 "
    "--optimizer sgd --quiet --workers 0 --log none"
)


def test_a_file_is_what_safetensors_writes(tmp_path: Path) -> None:
    about = {"step": 3, "name": 'né"\n'}
    kinds = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.float16, torch.bfloat16, torch.int32)
    tensors = {f"k{i}": torch.arange(3).to(dtype) for i, dtype in enumerate((*kinds, torch.float32, torch.float64))}
    tensors |= {"a": torch.tensor(1.5), "é": torch.zeros(0, 2), "t": torch.arange(6).view(2, 3).T}
    save_tensors(tmp_path / "x", tensors, about)
    plain = {name: tensor.contiguous() for name, tensor in tensors.items()}
    assert (tmp_path / "x").read_bytes() == save(plain, {"selfsup": json.dumps(about)})


def test_killed_and_resumed_with_other_numbers_of_processes_it_ends_as_one(tmp_path: Path) -> None:
    data = tmp_path / "x.npz"
    np.savez(data, x=np.random.default_rng(0).integers(0, 255, (24, 16, 16, 3), dtype=np.uint8))

    words = f"pretrain {data} {WORDS} --out {tmp_path / 'run'}"
    assert main(f"pretrain {data} {WORDS} --out {tmp_path / 'one'}".split()) == 0
    codes, said = launch(tmp_path, lambda rank: f"{words} --shard-weights", 2, (1, 2, signal.SIGKILL), task=MoCo)
    assert codes == [1, -signal.SIGKILL], said
    assert "another process of this run ended or hangs, so this one ends after step" in said[0]
    assert main(f"{words} --until 2".split()) == 0
    codes, said = launch(tmp_path, lambda rank: f"{words} --shard-weights", 2, task=MoCo)
    assert codes == [0, 0], said
    for name in (CHECKPOINT, Path("encoder.safetensors")):
        one, other = (load_tensors(tmp_path / out / name)[0] for out in ("one", "run"))
        assert one.keys() == other.keys()
        for key, tensor in one.items():
            torch.testing.assert_close(other[key], tensor, rtol=0, atol=1e-5, msg=lambda t, key=key: f"{key}: {t}")
    assert selfsup.load(tmp_path / "run")(torch.zeros(1, 3, 16, 16)).shape == (1, 128)


def jobs():
    """Return by name an encoder's task, a batch, an optimizer and what is done to the encoder before."""
    found = {}
    for name, encoder, optimizer, micro in (
        ("byol", "convnet", "sgd", None),  # an EMA encoder, and BatchNorm
        ("simclr", "vit-mini", "lars", 4),
        ("rotation", "nature-cnn", "adamw", None),
        ("mae", "vit-mini", "sgd", None),  # LoRA
    ):
        torch.manual_seed(0)
        built = build_encoder(encoder, SPEC)
        if name == "mae":
            add_lora(built, 2)
        task = find_task(name)(built)
        views = task.views(SPEC)
        batch = dict(views.finish(views.fetch(images(), np.arange(8), 0, 0).batch))
        found[f"{name} {encoder} {optimizer}"] = task, batch, optimizer, micro
    return found


def train(task, batch, optimizer: str, micro: int | None, mesh=None):
    """Return the norm of the gradient and the weights after a step, and the bytes of weights and moments here."""
    task = copy.deepcopy(task).train()
    synchronised(task, torch.device("cpu"))
    if mesh is not None:
        divide(task, mesh)
    steps = build_optimizer(task, optimizer, 0.005, 0.1, fused=optimizer == "adamw")
    torch.manual_seed(0)
    with encoders_in_parts(task, micro) if micro else nullcontext():
        task(batch).value.backward()
    norm = whole(torch.nn.utils.clip_grad_norm_(task.parameters(), 0.1, error_if_nonfinite=True))
    steps.step()
    task.after_step()
    held = [*task.parameters(), *(v for state in steps.state.values() for v in state.values())]
    size = sum(own(tensor.detach()).numel() * tensor.element_size() for tensor in held)
    state = merged_state(task)
    return {"norm": norm, **{name: whole(tensor).detach().clone() for name, tensor in state.items()}}, size


def work(rank: int, todo, wanted, failures, port: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.TCPStore("127.0.0.1", port, is_master=False), rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2, 1), mesh_dim_names=("data_parallel", "tensor_parallel"))
    for name, (task, batch, *how) in todo.items():
        found, size = train(task, {key: value[rank::2] for key, value in batch.items()}, *how, mesh)
        if size > 0.55 * wanted[name][1]:
            failures.put(f"{name}: process {rank} has {size} of {wanted[name][1]} bytes")
        for key, tensor in wanted[name][0].items():
            far = float((found[key].double() - tensor.double()).abs().max()) if tensor.numel() else 0.0
            if far > 1e-5:
                failures.put(f"{name}: {key} is {far:.1e} from what one process has")
    dist.destroy_process_group()


def test_two_processes_have_half_of_the_memory_and_take_the_same_steps() -> None:
    todo = jobs()
    wanted = {name: train(*job) for name, job in todo.items()}
    failures, store = (
        mp.get_context("fork").SimpleQueue(),
        dist.TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False),
    )
    mp.start_processes(work, (todo, wanted, failures, store.port), 2, start_method="fork")
    told = []
    while not failures.empty():
        told.append(failures.get())
    assert not told, "\n".join(told)


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    x = np.zeros((8, 16, 16, 3), np.uint8)
    with pytest.raises(UserError, match="--probe needs the whole encoder in one process"):
        selfsup.pretrain(x, probe=x, probe_labels=[0] * 8, shard_weights=True, out=tmp_path / "r", quiet=True)
    with pytest.raises(UserError, match="--shard-weights is for --precision bfloat16 or float32, not for float16"):
        make_fabric("cpu", "float16", shard_weights=True)
    task = torch.nn.Linear(2, 2)
    task.register_parameter("sharpness", torch.nn.Parameter(torch.ones(())))
    with pytest.raises(UserError, match="--shard-weights: sharpness is one number, which cannot be divided"):
        divide(task, None)
    with pytest.raises(RunFailed, match="computes with weights that are divided"), one_line(lambda: "", 2, None):
        raise RuntimeError("aten.mul.Tensor: got mixed torch.Tensor and DTensor, need to convert all")
