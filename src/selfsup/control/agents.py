"""Agents of Stable-Baselines3 whose updates are functions of (seed, step): its networks and its losses, our draws."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selfsup.base.seeding import seed_step
from selfsup.errors import UserError, need, unknown
from selfsup.train.checkpoint import load_weights

AGENTS, CPU = ("td3", "sac"), torch.device("cpu")
USUAL = {"learning_rate": 1e-3, "tau": 0.01, "gamma": 0.99}  # what is not Stable-Baselines3's default
NOISE = 0.2  # std of what is added to TD3's actions, which are from -1 to 1, while it explores
LOSSES = ("critic_loss", "actor_loss")


class Transitions(Protocol):
    """Where an agent's batches come from, such as `selfsup.control.replay.Replay`."""

    step: int

    def sample(self, batch_size: int, env: Any = None) -> Any:
        """Return the batch of a step, as Stable-Baselines3's `ReplayBufferSamples`."""


class Agent:
    """A TD3 or a SAC without an environment: observations (n, `inputs`) float32, actions (n, `actions`) from -1 to 1.

    Args:
        name: `td3` or `sac`.
        inputs: Dimension of an observation.
        actions: Dimension of an action.
        replay: Where batches come from.
        seed: Seed of the weights and of every update.
        batch_size: Transitions of an update.
        options: Arguments of the class of Stable-Baselines3, in place of `USUAL`.
    """

    def __init__(
        self,
        name: str,
        inputs: int,
        actions: int,
        replay: Transitions,
        seed: int,
        batch_size: int = 128,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if name not in AGENTS:
            raise unknown("agent", name, AGENTS)
        gymnasium, sb3 = need("gymnasium", "control"), need("stable_baselines3", "control")
        self.name, self.replay, self.seed, self.batch_size = name, replay, seed, batch_size
        given = copy.deepcopy({**USUAL, **(options or {})})  # which SAC changes
        if name == "sac":
            given["target_entropy"] = -float(actions)
        self.model = getattr(sb3, name.upper())(
            "MlpPolicy", None, buffer_size=1, device="cpu", _init_setup_model=False, **given
        )
        self.model.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (inputs,), np.float32)
        self.model.action_space = gymnasium.spaces.Box(-1, 1, (actions,), np.float32)
        self.model.n_envs = 1
        torch.manual_seed(_seed(seed, 0))
        self.model._setup_model()
        self.model.set_logger(quiet_logger())
        self.model.replay_buffer = replay
        self.states, self.variables = self.model._get_torch_save_params()

    def update(self, step: int) -> dict[str, float]:
        """Learn from one batch; return the losses. `step` counts the updates from 0 on."""
        self.replay.step = self.model._n_updates = step
        seed_step(_seed(self.seed, step + 1), CPU)
        self.model.train(1, self.batch_size)
        told = self.model.logger.name_to_value
        losses = {name: float(told[f"train/{name}"]) for name in LOSSES if f"train/{name}" in told}
        told.clear()
        return losses

    @torch.no_grad()
    def act(self, x: NDArray[np.float32], generator: np.random.Generator | None = None) -> NDArray[np.float32]:
        """Return actions (n, `actions`) for observations; with a generator such as explore."""
        self.model.policy.set_training_mode(False)
        exploring = generator is not None
        if generator is not None:
            seed_step(int(generator.integers(2**62)), CPU)
        found = self.model.policy._predict(torch.from_numpy(x), deterministic=not exploring).numpy()
        if generator is not None and self.name == "td3":
            found = found + NOISE * generator.standard_normal(found.shape, np.float32)
        return np.clip(found, -1, 1)

    def tensors(self) -> dict[str, Tensor]:
        """Return all that it needs to go on: networks, optimizers and the entropy coefficient, by name."""
        found: dict[str, Tensor] = {name: getattr(self.model, name).detach() for name in self.variables}
        for name in self.states:
            state = self._part(name).state_dict()
            if "param_groups" not in state:
                found |= {f"{name}.{key}": tensor for key, tensor in state.items()}
            for number, values in state.get("state", {}).items():
                found |= {f"{name}.{number}.{key}": torch.as_tensor(value) for key, value in values.items()}
        return found

    def load(self, tensors: Mapping[str, Tensor], where: object) -> None:
        """Go on from `tensors`. Raises `UserError` for those of another agent."""
        groups = {name: _below(tensors, name) for name in self.states}
        try:
            for name in self.variables:
                getattr(self.model, name).data.copy_(tensors[name])
            for name, own in groups.items():
                part = self._part(name)
                if not isinstance(part, torch.optim.Optimizer):
                    load_weights(part, own, where)
                    continue
                state: dict[int, dict[str, Tensor]] = {}
                for key, value in own.items():
                    number, _, what = key.partition(".")
                    state.setdefault(int(number), {})[what] = value
                part.load_state_dict({**part.state_dict(), "state": state})
        except (KeyError, ValueError, RuntimeError) as error:
            raise UserError(f"{where} does not fit this agent: {str(error).splitlines()[0]}") from None

    def _part(self, name: str) -> Any:
        part = self.model
        for attribute in name.split("."):
            part = getattr(part, attribute)
        return part


def quiet_logger() -> Any:
    """Return a logger of Stable-Baselines3 that keeps what it is told, and prints nothing."""
    logger: Any = need("stable_baselines3.common.logger", "control")
    return logger.Logger(None, [])


def _below(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}


def _seed(seed: int, number: int) -> int:
    return seed * 1_000_003 * 4099 + number
