"""Seeding torch for one step."""

from __future__ import annotations

import torch


def seed_step(seed: int, device: torch.device) -> None:
    """Seed the generators of the CPU and of `device`, as `torch.manual_seed` does with those of all devices.

    That formats a stack trace for every kind of device that is not in use: a millisecond, in each step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
