"""Optimizers by name, and the learning rate as a pure function of progress."""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from torch import nn

from selfsup.errors import UserError
from selfsup.task import Task

OPTIMIZERS = ("adamw", "sgd", "lars")


def build_optimizer(
    module: nn.Module,
    name: str,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
    fused: bool = False,
    layer_decay: float | None = None,
) -> torch.optim.Optimizer:
    """Return the optimizer of a module's trained parameters, with groups for each `child` of the module.

    Of a task that is part of another one, each child counts (`parts.dino.prototypes`), for `lr_of_part`.

    `adamw` with `betas`; `sgd` with Nesterov momentum 0.9; `lars` (You et al., 2017) with momentum 0.9. Vectors
    (biases, BatchNorm) get no weight decay, and under LARS no trust ratio (Grill et al., 2020, section 3.2); nor do
    positions and tokens that a model names in `no_weight_decay()`, as timm's do.

    With `layer_decay`, each layer of a task's `encoder` has groups of its own, whose `rate` is layer_decay to
    the power of the layers above it (Clark et al., 2020, "ELECTRA"; BEiT and MAE fine-tune so): the lower a layer, the
    less it moves. Raises `UserError` for an encoder whose layers are not known.

    `fused` makes AdamW and SGD one pass over memory, on a CPU six times as fast. It wants gradients and moments laid
    out in memory as their parameters are, which autograd and `restore` see to, and on a CPU checks nothing. Without it
    torch chooses what is best for the device.
    """
    parts: dict[tuple[str, bool, int], list[nn.Parameter]] = {}
    above = _layers_above(module.get_submodule("encoder")) if layer_decay else {}
    spared, tasks = _spared(module), [f"{name}." for name, part in module.named_modules() if isinstance(part, Task)]
    for key, parameter in module.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and key not in spared
            of = next((task for task in tasks if key.startswith(task)), "")
            child = of + key.removeprefix(of).partition(".")[0]
            parts.setdefault((child, decays, above.get(parameter, 0)), []).append(parameter)
    groups: list[dict[str, Any]] = [
        {
            "params": parameters, "weight_decay": weight_decay if decays else 0.0, "child": child,
            "rate": (layer_decay or 1.0) ** layers,
        }
        for (child, decays, layers), parameters in parts.items()
    ]  # fmt: skip
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True, fused=fused or None)
    if name == "lars":
        from timm.optim import Lars

        return Lars(groups, lr=lr, momentum=0.9)
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=fused or None)


def leave_frozen(optimizer: torch.optim.Optimizer) -> None:
    """Drop the gradients of groups whose learning rate is 0, which would only fill the optimizer's moments."""
    for group in optimizer.param_groups:
        if group["lr"] == 0:
            for parameter in group["params"]:
                parameter.grad = None


def _layers_above(encoder: Any) -> dict[nn.Parameter, int]:
    """Return how many layers of a model of timm or transformers lie above each parameter of its encoder."""
    model: Any = getattr(encoder, "model", None)
    named = dict(encoder.named_parameters(prefix="encoder"))
    if hasattr(model, "group_matcher"):  # of timm
        from timm.models import group_parameters

        depths = group_parameters(model, model.group_matcher(coarse=False), reverse=True)
        found = {f"encoder.model.{name}": depth for name, depth in depths.items()}
    else:  # layers are numbered; what comes before them in the model lies below all of them
        numbers = {name: re.search(r"\.(?:layers?|blocks|h)\.(\d+)\.", name) for name in named}
        found, depth = {}, 0
        for name, number in numbers.items():
            depth = int(number[1]) + 1 if number else depth
            found[name] = depth
        if not any(numbers.values()):
            raise UserError("--layer-decay is for encoders whose layers are numbered: leave it out")
    top = max(found.values())
    return {parameter: top - found.get(name, top) for name, parameter in named.items()}


def _spared(module: nn.Module) -> set[str]:
    """Return the names of the positions and tokens among the parameters, which are not to shrink."""
    found: set[str] = set()
    for name, part in module.named_modules():
        listed = getattr(part, "no_weight_decay", None)
        if callable(listed):
            found |= {f"{name}.{key}" if name else key for key in listed()}
    return found


def warmup_cosine(progress: float, warmup: float) -> float:
    """Return the factor of the learning rate at `progress` in [0, 1]: linear up to `warmup`, then cosine to 0."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))
