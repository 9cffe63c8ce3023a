"""Inverse model (Agrawal et al., 2016; Pathak et al., 2017): which action lay between two observations?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.base.distributed import gather
from selfsup.data.trajectory import transitions
from selfsup.errors import UserError
from selfsup.losses import full
from selfsup.nn.control.panels import action_words, transition_panels
from selfsup.nn.heads import accuracy, mlp
from selfsup.source import Source
from selfsup.spec import TrajectorySpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.trajectory import TransitionViews


class Inverse(Task):
    """Predict the action from the observations before and after it (Agrawal et al., 2016).

    The simple baseline of this chapter: it needs no rewards, and learns what the actions move, nothing else. Discrete
    actions are a classification, chance is the ln of their number. The values of a box are a regression, whose squared
    error is divided by their variance in the batch; chance is 1.

    Batch: `obs`, `next_obs` (B, S·C, H, W) float; `action` (B, A) float or (B,) int64; `reward` is shown; `discount`,
    `episode` and `time` are not used.
    Published: as the features of curiosity, in VizDoom and Super Mario without rewards (Pathak et al., 2017).

    Deviations: only the inverse model; the forward model of both papers is `deepmdp --reward-weight 0`.

    Args:
        hidden_dim: Width of the head's hidden layer, in [1, inf).
    """

    paper = "Agrawal et al., 2016"
    section = "control: actions"
    kind = "trajectory"
    default_encoder = small_encoder = "nature-cnn"

    def __init__(self, encoder: Encoder, *, hidden_dim: int = 256) -> None:
        super().__init__(encoder)
        self.discrete, count = encoder.spec.action[0] == "discrete", encoder.spec.action[1]
        if not count:
            raise UserError("these trajectories have no actions to predict; give --task stdim, which needs none")
        self.head = mlp(2 * encoder.dim, hidden_dim, count)

    def samples(self, source: Any) -> Source:
        """Return the transitions of all episodes."""
        return transitions(source, actions=True)

    def views(self, spec: TrajectorySpec) -> TransitionViews:
        """Return what was seen before and after an action."""
        return TransitionViews(spec)

    def predict(self, batch: Batch) -> Tensor:
        """Return the logits (B, n) of discrete actions, or the values (B, d) of a box."""
        before, after = self.encoder(torch.cat([batch["obs"], batch["next_obs"]])).chunk(2)
        return full(self.head(torch.cat([before, after], 1)))

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy, or the fraction of the variance that is not explained."""
        guess, action = self.predict(batch), batch["action"]
        if self.discrete:
            value = F.cross_entropy(guess, action)
            return Loss(value, {"accuracy": accuracy(guess, action)}, math.log(guess.shape[1]))
        guess, action = gather(guess), gather(action)
        spread = action.var(0, correction=0)
        moving = spread > 1e-8  # a value that does not change has nothing to predict
        error = torch.where(moving, (guess - action).square().mean(0) / spread.clamp_min(1e-8), 0.0)
        value = error.sum() / moving.sum().clamp_min(1)
        return Loss(value, {"explained": 1 - value.detach()}, 1.0)

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return both observations with the action; with `guess` the one that is predicted."""
        if not guess:
            return transition_panels(batch)
        found = self.predict(batch)
        told = found.argmax(1) if self.discrete else found
        return transition_panels(batch, [f"guess: {action_words(action)}" for action in told])
