"""An encoder of the user's own: any torch module that turns a batch of samples into a vector each."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from selfsup.errors import UserError
from selfsup.spec import Spec


def own_encoder(module: nn.Module, spec: Spec) -> Any:
    """Return a copy of a module as an encoder (see `selfsup.task.Encoder`) of samples of this spec, on the CPU.

    It is tried with two samples, and gets `dim` and `spec`. Methods like `maps` and `tokens` are there if the module
    has them.

    Raises:
        UserError: the module cannot take such samples, or gives something else than floats (B, dim).
    """
    name, own = type(module).__name__, copy.deepcopy(module).cpu()
    x, modes = spec.example(2), {part: part.training for part in own.modules()}
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            found = own.eval()(x)
    except Exception as error:  # it may raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"encoder {name} cannot take {spec.describe()}, {tuple(x.shape)}: {reason}") from error
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != 2 or not found.is_floating_point():
        told = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise UserError(
            f"encoder {name} must turn (B, …) into a vector of floats for each sample, (B, dim); of "
            f"{tuple(x.shape)} it makes {told}: pool and flatten what it returns"
        )
    for part, mode in modes.items():
        part.training = mode
    for attribute, value in {"dim": found.shape[1], "spec": spec}.items():
        if getattr(own, attribute, value) != value:
            raise UserError(
                f"encoder {name} has a {attribute} of its own, {getattr(own, attribute)}, and an encoder's {attribute} "
                f"is {value} here: give that attribute another name"
            )
        setattr(own, attribute, value)
    return own
