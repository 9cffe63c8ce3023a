"""Simulators, recordings and agents: the only package that knows gymnasium, pybullet and stable_baselines3."""

from __future__ import annotations

import os
from typing import Any


def features(run: str | os.PathLike[str]) -> dict[str, Any]:
    """Return `policy_kwargs` by which an agent of Stable-Baselines3 sees images through the frozen encoder of a run.

    Such as `SAC("CnnPolicy", env, policy_kwargs=selfsup.control.features("runs/deepmdp"))`. Raises `UserError` where
    Stable-Baselines3 is not installed.
    """
    from selfsup.errors import need

    need("stable_baselines3", "control")
    from selfsup.control.extractor import Features

    return {"features_extractor_class": Features, "features_extractor_kwargs": {"run": os.fspath(run)}}
