"""A request to `control`, and what seeds are for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from selfsup.control.environments import Environment
from selfsup.control.playing import check_environment
from selfsup.errors import UserError

ROUND, ROUNDS = 500, 250  # steps of a round, about; rounds at most, so that all shards can stay open
RANDOM, FEW = 10_000, 1_000  # observations of random actions: that an encoder learns from first, or that begin a replay
BATCH, RESET, AIM, NOISE, TRIAL = 1, 2, 3, 4, 5  # what a seed is for
SIGHTS = {  # what an agent sees instead of `latents`, of goals and of rewards
    True: ("latents", "state", "pixels"),
    False: ("latents", "state", "pixels", "crops", "random"),
}


@dataclass(frozen=True)
class Asked:
    """What is to be learned, as plain values of JSON."""

    task: str
    env: str
    test: str  # the environment in which it is measured too
    goals: bool  # that are imagined, in place of the environment's rewards
    steps: int
    episodes: int
    seed: int
    sees: str
    agent: str
    joint: bool
    size: int
    stack: int
    encoder: str
    encoder_steps: int
    batch_size: int
    per_round: int
    options: Mapping[str, Any] = field(default_factory=dict)  # of the task
    agent_options: Mapping[str, Any] = field(default_factory=dict)  # of the class of Stable-Baselines3


def asked_of(env: str, task: str, options: Mapping[str, Any], **given: Any) -> Asked:
    """Return a checked request. Raises `UserError` for an environment in which the agents cannot act."""
    worlds = []
    for name in dict.fromkeys((env, given["test"])):
        world = Environment(name, policy="", size=given["size"])
        worlds.append(world)
        world.close()
        check_environment(world, given["goals"] or given["sees"] == "state")
    if len({(world.action, world.states) for world in worlds}) > 1:
        raise UserError(f"{worlds[1].name} has other actions or states than {env}: give another --test")
    length = worlds[0].steps
    episodes = given.pop("episodes") or -(-(RANDOM if given["goals"] else FEW) // (length + 1))
    per_round = max(2, max(ROUND, given["steps"] // ROUNDS) // length)
    return Asked(task, env, episodes=episodes, per_round=per_round, options=dict(options), **given)
