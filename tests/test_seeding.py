"""Seeding for a step draws what torch.manual_seed would, without its cost."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
import torch

from selfsup.base.seeding import seed_step


@pytest.mark.parametrize("seed", [0, 3, 2**62, (2**31) * 4099 * 1_000_003])
def test_a_step_draws_what_torch_manual_seed_gives(seed: int) -> None:
    torch.manual_seed(seed)
    wanted = torch.randn(4)
    seed_step(seed, torch.device("cpu"))
    assert torch.equal(torch.randn(4), wanted)


def test_seeding_formats_no_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    def formatted(*_: Any, **__: Any) -> list[str]:
        raise AssertionError("a stack trace was formatted")

    monkeypatch.setattr(traceback, "format_stack", formatted)
    seed_step(1, torch.device("cpu"))
