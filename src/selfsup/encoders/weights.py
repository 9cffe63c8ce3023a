"""Weights from a file: safetensors, or what torch saved, read as tensors alone."""

from __future__ import annotations

import argparse
import hashlib
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from selfsup.base.notes import say
from selfsup.errors import UserError

INSIDE = (  # where checkpoints keep weights
    "state_dict", "model_state_dict", "model", "model_state", "teacher", "target_encoder", "model_ema", "student",
    "encoder", "backbone", "net",
)  # fmt: skip
TORCH = (b"PK", b"\x80")  # how files begin that torch saves: a zip archive, or in earlier versions a pickle
BEFORE = (  # what wrappers write before the names, and which of two encoders the methods keep
    "module.", "_orig_mod.", "teacher.", "encoder_q.", "base_encoder.", "online_encoder.", "student.", "backbone.",
    "encoder.", "model.",
)  # fmt: skip
HARMLESS = (argparse.Namespace,)  # the options of a training script, which many checkpoints have beside the weights


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the named tensors of a .safetensors file, or of one that torch saved; nothing in it is run.

    Weights that a training script wrapped are found: below `state_dict`, `model`, `teacher` and the like, and with
    `module.`, `backbone.` or `encoder_q.` before their names. Other parts, such as a head, are left out then, and said.

    Raises:
        UserError: no such file, one that is damaged, that would run code when it is read, without tensors, or with
            some that are not finite.
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
            with warnings.catch_warnings(), torch.serialization.safe_globals(list(HARMLESS)):
                warnings.simplefilter("ignore")  # what torch makes of it is said below, in one line
                found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise UserError(
            f"{path} holds more than tensors{f' ({named[1]})' if named else ''} and would run code when it is read, so "
            "it is not read: save its state_dict alone, best as safetensors"
        ) from None
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} holds no weights, or is cut off ({reason}): get it again") from None
    while isinstance(found, Mapping) and (inner := next((found[key] for key in INSIDE if _is_part(found, key)), None)):
        found = inner
    weights = {key: value for key, value in found.items() if _is_weight(key, value)} if _is_mapping(found) else {}
    if not weights:
        parts = [str(key) for key in found if _is_part(found, key)] if _is_mapping(found) else []
        raise UserError(
            f"{path} holds no named tensors"
            + (f", but {', '.join(map(repr, parts[:8]))}: save the one with the weights alone" if parts else "")
        )
    floats = ((key, value) for key, value in weights.items() if value.is_floating_point())
    odd = next((key for key, value in floats if not value.float().isfinite().all()), None)
    if odd is not None:
        raise UserError(f"{path} holds weights that are not finite ({odd}): take those of before training diverged")
    return _unwrapped(weights, path)


def _unwrapped(weights: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return the weights without what wrappers wrote before their names; say what is left out for that."""
    inner, before = weights, ""
    while prefix := next((one for one in BEFORE if 3 * sum(key.startswith(one) for key in inner) > len(inner)), None):
        inner = {key.removeprefix(prefix): value for key, value in inner.items() if key.startswith(prefix)}
        before += prefix
    others = [key for key in weights if not key.startswith(before)]
    if others:
        say(f"{path}: the weights below {before!r} are read; left out: {len(others):,}, such as {others[0]}")
    return inner


def weights_digest(module: nn.Module) -> str:
    """Return a hash of the names and values of a module's weights."""
    found = hashlib.blake2b(digest_size=8)
    for name, tensor in module.state_dict().items():
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _is_mapping(found: Any) -> TypeGuard[Mapping[Any, Any]]:
    return isinstance(found, Mapping)


def _is_part(found: Mapping[Any, Any], key: Any) -> bool:
    return isinstance(found.get(key), Mapping) and len(found[key]) > 0


def _is_weight(key: Any, value: Any) -> bool:
    return isinstance(key, str) and isinstance(value, Tensor) and value.layout is torch.strided
