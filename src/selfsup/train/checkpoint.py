"""Checkpoints: one safetensors file with JSON inside, written aside, fsynced and renamed. Nothing is unpickled."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import Precision
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from selfsup.base.writing import whole_file
from selfsup.errors import UserError
from selfsup.train.sharding import divided_like, whole

CHECKPOINT = Path("checkpoint", "latest.safetensors")  # in a run folder


DTYPES = {  # as safetensors calls and orders them
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.int16: "I16", torch.float16: "F16",
    torch.bfloat16: "BF16", torch.int32: "I32", torch.float32: "F32", torch.float64: "F64", torch.int64: "I64",
}  # fmt: skip


def save_tensors(path: Path | None, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write named tensors and a JSON object, as safetensors would, but with one tensor at a time in memory.

    Tensors that are divided among processes (`train.sharding`) are put together one by one: all processes have to call
    this, with the same names, and None in place of the path in those that do not write.
    """
    order = list(DTYPES)
    names = sorted(sorted(tensors), key=lambda name: -order.index(tensors[name].dtype))
    if path is None:
        for name in names:
            whole(tensors[name])
        return
    header: dict[str, Any] = {"__metadata__": {"selfsup": json.dumps(about)}}
    end = 0
    for name in names:
        tensor, begin = tensors[name], end
        end += tensor.numel() * tensor.element_size()
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    head = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    with whole_file(path) as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for name in names:
            flat = whole(tensors[name]).detach().cpu().contiguous().reshape(-1)
            file.write(flat.view(torch.uint8).numpy().data)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_tensors` wrote. Raises `UserError` for anything else."""
    with _opened(path) as file:
        about = json.loads((file.metadata() or {})["selfsup"])
        if not isinstance(about, dict):
            raise ValueError("its description is not a JSON object")
        return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118


def step_saved(path: Path) -> int | None:
    """Return the step of a checkpoint, without reading its tensors; None if there is none."""
    if not path.exists():
        return None
    with _opened(path) as file:
        return step_of(json.loads((file.metadata() or {})["selfsup"]), path)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except (SafetensorError, KeyError, ValueError, TypeError, RecursionError, OSError) as error:
        raise UserError(f"{path} was not written by selfsup: {error}") from None


def check_fit(build: Callable[[], nn.Module], path: Path, prefix: str = "") -> None:
    """Raise `UserError` unless a file's tensors (whose names begin with `prefix`) are those of the built module.

    Only shapes are compared: a recipe that describes more than its weights contain takes no memory.
    """
    with _opened(path) as file:
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
        there = {name.removeprefix(prefix): tuple(file.get_slice(name).get_shape()) for name in names}
    try:
        with torch.device("meta"):
            own = {name: tuple(tensor.shape) for name, tensor in build().state_dict().items()}
    except (RuntimeError, UserError) as error:
        if "meta" in str(error):  # a module that computes with its weights while it is built
            return
        raise
    _compare(own, there, path)


def _compare(own: Mapping[str, tuple[int, ...]], there: Mapping[str, tuple[int, ...]], where: object) -> None:
    wrong = sorted(own.keys() ^ there.keys()) or [name for name in own if own[name] != there[name]]
    if wrong:
        raise UserError(f"{where} does not fit this model: {len(wrong)} tensors differ, for example {wrong[0]!r}")


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], where: object) -> None:
    """Load weights by name; raise `UserError` unless the names and shapes are those of the module."""
    state = module.state_dict()
    own, there = ({name: tuple(t.shape) for name, t in some.items()} for some in (state, weights))
    _compare(own, there, where)
    module.load_state_dict({name: divided_like(weights[name], like) for name, like in state.items()})


def training_state(task: nn.Module, optimizer: torch.optim.Optimizer, precision: Precision) -> dict[str, Tensor]:
    """Return all that a run needs to resume, as named tensors: `task.*`, `optimizer.<parameter>.*`, `precision.*`.

    The last one is the loss scale of float16.
    """
    tensors = {f"task.{name}": tensor for name, tensor in task.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{key}": torch.as_tensor(value) for key, value in state.items()}
    return tensors | {f"precision.{key}": torch.as_tensor(value) for key, value in precision.state_dict().items()}


def restore(
    tensors: Mapping[str, Tensor],
    task: nn.Module,
    optimizer: torch.optim.Optimizer,
    precision: Precision,
    where: object,
) -> None:
    """Put a `training_state` back, in the memory format that the parameters have (so that sums round the same)."""
    load_weights(task, {k.removeprefix("task."): v for k, v in tensors.items() if k.startswith("task.")}, where)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, number, key = (*name.split(".", 2), "", "")[:3]
            if not (number.isdecimal() and int(number) < len(parameters) and key):
                raise UserError(f"{where} does not fit this optimizer: {name!r} belongs to none of its parameters")
            parameter = parameters[int(number)]
            if tensor.shape not in ((), parameter.shape):
                raise UserError(f"{where} does not fit this optimizer: {name!r} has the shape {tuple(tensor.shape)}")
            if tensor.shape == parameter.shape:
                tensor = torch.empty_like(parameter, dtype=tensor.dtype).copy_(divided_like(tensor, parameter))
            state.setdefault(int(number), {})[key] = tensor
    kept = next(iter(state.values()), {}).keys()
    if any(one.keys() != kept for one in state.values()):
        raise UserError(f"{where} does not fit this optimizer: it has other numbers of one parameter than of another")
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    scaling = {key.removeprefix("precision."): value for key, value in tensors.items() if key.startswith("precision.")}
    if scaling:
        if scaling.keys() != precision.state_dict().keys() or any(value.shape for value in scaling.values()):
            raise UserError(f"{where} does not fit this precision: its state has {', '.join(sorted(scaling))}")
        precision.load_state_dict({key: value.item() for key, value in scaling.items()})


def step_of(about: Mapping[str, Any], where: object) -> int:
    """Return the step that a checkpoint was saved after."""
    step = about.get("step")
    if not isinstance(step, int) or step < 0:
        raise UserError(f"{where} does not say at which step it was saved")
    return step
