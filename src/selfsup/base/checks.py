"""Checks before work begins: numbers in their ranges, and places that can be written."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from numbers import Integral
from pathlib import Path
from typing import Any

from selfsup.errors import UserError


def _whole(low: int, high: int) -> tuple[str, Callable[[Any], bool]]:
    return f"a whole number from {low:,} to {high:,}", lambda v: isinstance(v, Integral) and low <= int(v) <= high


def _positive(high: float) -> tuple[str, Callable[[Any], bool]]:
    return f"more than 0 and at most {high:,.15g}", lambda v: bool(0 < v <= high)


DATA = ("size", "channels")  # options of a kind of data
NUMBERS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "step": _whole(1, 10**9),
    "steps": _whole(1, 10**9),
    "encoder_steps": _whole(1, 10**9),
    "episodes": _whole(1, 10**7),
    "epochs": _positive(10**6),
    "minutes": _positive(10**6),
    "until": _whole(1, 10**9),
    "size": _whole(8, 4096),
    "channels": _whole(1, 64),
    "batch_size": _whole(2, 2**20),
    "micro_batch": _whole(2, 2**20),
    "lr": _positive(1000),
    "weight_decay": ("from 0 to 1,000", lambda v: bool(0 <= v <= 1000)),
    "warmup": ("at least 0 and less than 1", lambda v: bool(0 <= v < 1)),
    "low_res_first": ("at least 0 and less than 1", lambda v: bool(0 <= v < 1)),
    "drop_tokens": ("at least 0 and less than 1", lambda v: bool(0 <= v < 1)),
    "layer_decay": ("above 0 and at most 1", lambda v: bool(0 < v <= 1)),
    "l2_sp": _positive(10**6),
    "lora": _whole(1, 4096),
    "clip": _positive(10**6),
    "seed": _whole(0, 2**31 - 1),
    "seeds": _whole(1, 1000),
    "probe_every": _positive(10**6),
    "workers": _whole(0, 256),
    "count": _whole(1, 100),
    "k": _whole(1, 10**6),
    "shots": _whole(1, 10**6),
    "n": _whole(1, 10**10),
    "clusters": _whole(1, 10**6),
    "above": _positive(1),
    "port": _whole(0, 65535),
    "unsure_below": ("from 0 to 1", lambda v: bool(0 <= v <= 1)),
    "block": _whole(1, 10**9),
    "shard_mb": _whole(1, 2**20),
    "draws": _whole(2, 1000),  # one draw has no interval
}


def check_numbers(**options: Any) -> None:
    """Raise `UserError` for the first option that is out of its range in `NUMBERS`; None was not given."""
    for option, value in options.items():
        if value is None:
            continue
        words, holds = NUMBERS[option]
        try:
            sound = holds(value)
        except (TypeError, ValueError):
            sound = False
        if not sound:
            given = f"{value:.15g}" if isinstance(value, float) else repr(value)
            raise UserError(f"--{option.replace('_', '-')} must be {words}, not {given}")


def check_data_numbers(options: Mapping[str, Any]) -> None:
    """Check the options of a kind of data, `DATA`, among others that are checked elsewhere."""
    check_numbers(**{name: options[name] for name in DATA if name in options})


def check_new_file(path: Path) -> None:
    """Raise `UserError` unless a file can be written at `path`."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the name of a file as --out")
    if not path.parent.is_dir():
        raise UserError(f"no such folder: {path.parent}; create it, or give another --out")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UserError(f"the folder {path.parent} is not writable; give another --out")


def check_new_image(path: Path, option: str = "--out") -> None:
    """Raise `UserError` unless an image can be written at `path`."""
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise UserError(f"{option} must end in .png, .jpg or .webp, not {path.name!r}")
    check_new_file(path)


def check_new_folder(path: Path) -> None:
    """Raise `UserError` unless a folder can be made at `path`, with those above it, or is there to be written."""
    there = next(folder for folder in (path, *path.absolute().parents) if os.path.lexists(folder))
    if not there.is_dir():
        raise UserError(f"{there} is not a folder, so nothing can be written to {path}; give another --out")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"the folder {there} is not writable; give another --out")
