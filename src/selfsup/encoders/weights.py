"""Weights from a file: safetensors, or what torch saved, read as tensors alone."""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from selfsup.errors import UserError

INSIDE = ("state_dict", "model", "model_state", "teacher", "model_ema", "student")  # where checkpoints keep weights
TORCH = (b"PK", b"\x80")  # how files begin that torch saves: a zip archive, or in earlier versions a pickle
BEFORE = ("module.", "backbone.", "encoder.", "model.")  # what wrappers write before the names


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the named tensors of a .safetensors file, or of one that torch saved; nothing in it is run.

    Weights that a training script wrapped are found: below `state_dict`, `model`, `teacher` and the like, and with
    `module.` or `backbone.` before all of their names (names of other parts, such as a head, are left out then).

    Raises:
        UserError: no such file, one that is damaged, that would run code when it is read, or without tensors.
    """
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    try:
        if path.suffix == ".safetensors":
            found: Any = load_file(path)
        else:
            with path.open("rb") as file:
                if not file.read(2).startswith(TORCH):
                    raise UserError(f"{path} is neither a .safetensors file nor one that torch saved")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what torch makes of it is said below, in one line
                found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than tensors and would run code when it is read, so it is not read: save its "
            f"state_dict alone, best as safetensors ({str(error).splitlines()[0][:100]})"
        ) from None
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise UserError(f"{path} holds no weights: {(str(error).splitlines() or [type(error).__name__])[0]}") from None
    while isinstance(found, Mapping) and (inner := next((found[key] for key in INSIDE if _is_part(found, key)), None)):
        found = inner
    named = {key: value for key, value in found.items() if _is_weight(key, value)} if isinstance(found, Mapping) else {}
    if not named:
        raise UserError(f"{path} holds no named tensors")
    for prefix in BEFORE:
        if sum(key.startswith(prefix) for key in named) > len(named) / 2:
            named = {key.removeprefix(prefix): value for key, value in named.items() if key.startswith(prefix)}
    return named


def weights_digest(module: nn.Module) -> str:
    """Return a hash of the names and values of a module's weights."""
    found = hashlib.blake2b(digest_size=8)
    for name, tensor in module.state_dict().items():
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _is_part(found: Mapping[Any, Any], key: str) -> bool:
    return isinstance(found.get(key), Mapping) and len(found[key]) > 0


def _is_weight(key: Any, value: Any) -> bool:
    return isinstance(key, str) and isinstance(value, Tensor)
