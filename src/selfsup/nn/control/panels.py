"""Transitions as panels."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from selfsup.task import Batch, Panel


def action_words(action: Tensor) -> str:
    """Return one action as words: its number, or its values."""
    if not action.is_floating_point():
        return f"action {int(action)}"
    values = [f"{value:.2g}" for value in action.tolist()]
    return f"action ({', '.join([*values[:4], '…'] if len(values) > 4 else values)})" if values else "no action"


def transition_panels(batch: Batch, guesses: Sequence[str] | None = None) -> list[list[Panel]]:
    """Return the observations before and after each action; captions: action and reward, and what is guessed."""
    rows = []
    for place, (before, after) in enumerate(zip(batch["obs"], batch["next_obs"], strict=True)):
        reward = float(batch["reward"][place])
        told = ["no reward" if math.isnan(reward) else f"reward {reward:.3g}"]
        told += [] if guesses is None else [guesses[place]]
        rows.append([Panel(before, action_words(batch["action"][place])), Panel(after, ", ".join(told))])
    return rows
