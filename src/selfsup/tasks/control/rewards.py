"""What tasks ask of the rewards of their data."""

from __future__ import annotations

from typing import Any

import numpy as np

from selfsup.errors import UserError


def reward_scale(source: Any, needed: bool) -> float:
    """Return the std of the known rewards of a source of episodes, in whose units they are learned; 1 where it is 0.

    Raises `UserError` where rewards are `needed` and all the same.
    """
    reward = source.all_steps().reward
    reward = reward[np.isfinite(reward)]
    if len(reward) and reward.min() < reward.max():
        return float(reward.std())
    if len(reward) and needed:
        raise UserError(
            f"every reward of {source.name} is {reward[0]:g}, so rewards tell no state from another and a bisimulation "
            "cannot be learned; inverse, stdim, and deepmdp --reward-weight 0 need no rewards"
        )
    return 1.0
