"""What tasks ask of the rewards of their data."""

from __future__ import annotations

from typing import Any

import numpy as np

from selfsup.errors import UserError


def check_rewards(source: Any) -> None:
    """Raise `UserError` for a source of episodes whose known rewards are all the same."""
    reward = source.all_steps().reward
    reward = reward[np.isfinite(reward)]
    if len(reward) and reward.min() == reward.max():
        raise UserError(
            f"every reward of {source.name} is {reward[0]:g}, so rewards tell no state from another and a bisimulation "
            "cannot be learned; inverse, stdim, and deepmdp --reward-weight 0 need no rewards"
        )
