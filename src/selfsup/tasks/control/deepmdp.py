"""DeepMDP (Gelada et al., 2019): a latent state from which reward and next latent state can be predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from selfsup.data.trajectory import transitions
from selfsup.errors import UserError
from selfsup.losses import full
from selfsup.nn.control import models
from selfsup.nn.control.latent import Latent
from selfsup.nn.control.panels import transition_panels
from selfsup.source import Source
from selfsup.spec import TrajectorySpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.tasks.control.rewards import reward_scale
from selfsup.views.trajectory import TransitionViews


class DeepMDP(Task):
    """Predict the reward of an action, and the latent state that follows it (Gelada et al., 2019).

    z = φ(x) and the action predict the reward (squared error) and the next latent φ(x') (half the squared error, or
    with `probabilistic` the negative log-likelihood of a normal). What does not help to predict rewards, now or later,
    may be left out of z, as a background that moves.

    Counter-measures to collapse: a constant φ has no transition loss at all. So the target φ(x') gets no gradient, z is
    normalized (LayerNorm), and rewards have to be read from it; with `reward_weight` 0 only the first two are left. The
    metric `std` is that of the latents over the batch: near 0 they have collapsed.

    Batch: `obs`, `next_obs` (B, S·C, H, W) float; `action` (B, A) float or (B,) int64; `reward` (B, 1) float; `noise`
    (B,) int64; `discount`, `episode` and `time` are not used.
    Published: Atari, 60 games: added to the loss of C51 it is better than C51 alone in most of them.

    Deviations: recorded transitions alone, without a critic; rewards in units of their std; squared errors, LayerNorm
    and the detached target of the code of DBC's authors; the penalty takes one random direction of outputs a sample.

    Args:
        latent_dim: Dimension of the latent state z, which is the representation, in [1, inf).
        hidden_dim: Width of the hidden layer of both models, in [1, inf).
        transition_weight: Weight of the transition loss; 0: rewards alone, in [0, inf).
        reward_weight: Weight of the reward loss; 0: transitions alone, in [0, inf).
        reward_scale: Rewards are divided by it; by default their std in the data, in (0, inf).
        lipschitz: Weight of a gradient penalty on models that are steeper than 1, in [0, inf).
        probabilistic: Predict the std of the next latent too.
    """

    paper = "Gelada et al., 2019"
    section = "control: rewards"
    kind = "trajectory"
    default_encoder = small_encoder = "nature-cnn"
    coupled = False

    def __init__(
        self,
        encoder: Encoder,
        *,
        latent_dim: int = 50,
        hidden_dim: int = 512,
        transition_weight: float = 1.0,
        reward_weight: float = 1.0,
        reward_scale: float | None = None,
        lipschitz: float = 0.0,
        probabilistic: bool = False,
    ) -> None:
        super().__init__(encoder)
        if transition_weight == reward_weight == 0:
            raise UserError("with --transition-weight 0 and --reward-weight 0 there is nothing to learn")
        self.transition_weight, self.reward_weight, self.lipschitz = transition_weight, reward_weight, lipschitz
        self.space, self.reward_scale = encoder.spec.action, reward_scale or 1.0
        actions, self.latent = self.space[1], Latent(encoder, latent_dim)
        self.dynamics = self.reward = None
        if transition_weight:
            self.dynamics = models.Dynamics(latent_dim, actions, hidden_dim, probabilistic)
        if reward_weight:
            self.reward = models.layer_norm_mlp(latent_dim + actions, hidden_dim, 1)

    @classmethod
    def resolve(cls, source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the std of the rewards."""
        return {"reward_scale": reward_scale(source, needed=False)}

    def samples(self, source: Any) -> Source:
        """Return the transitions of all episodes."""
        return transitions(source, actions=self.space[0] != "none", rewards=self.reward is not None)

    def views(self, spec: TrajectorySpec) -> TransitionViews:
        """Return what was seen before and after an action."""
        return TransitionViews(spec, noise=True)

    def representation(self) -> Encoder:
        """Return the encoder up to z."""
        return self.latent

    def loss(self, batch: Batch) -> Loss:
        """Return the weighted sum of both losses and of the penalty."""
        z, action = full(self.latent(batch["obs"])), models.action_vectors(batch["action"], self.space)
        value, metrics = z.new_zeros(()), {"std": z.detach().std(0, correction=0).mean()}
        if self.dynamics is not None:
            with torch.no_grad():
                target = self.latent(batch["next_obs"])
            mean, sigma = self.dynamics(z, action)
            value = value + self.transition_weight * models.normal_loss(mean, sigma, target)
            metrics["transition"] = models.explained(mean, target)
        if self.reward is not None:
            guess, reward = full(self.reward(torch.cat([z, action], 1))), batch["reward"] / self.reward_scale
            value = value + self.reward_weight * F.mse_loss(guess, reward)
            metrics["reward"] = models.explained(guess, reward)
        if self.lipschitz:
            used = [model for model in (self.dynamics, self.reward) if model is not None]
            penalties = [models.gradient_penalty(model, z, action, batch["noise"]) for model in used]
            penalty = torch.stack(penalties).sum()
            value, metrics["penalty"] = value + self.lipschitz * penalty, penalty.detach()
        return Loss(value, metrics)

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return both observations with action and reward; with `guess` the reward that is predicted."""
        if not guess or self.reward is None:
            return transition_panels(batch)
        z, action = self.latent(batch["obs"]), models.action_vectors(batch["action"], self.space)
        found = (self.reward_scale * self.reward(torch.cat([z, action], 1))[:, 0]).tolist()
        return transition_panels(batch, [f"guess: {reward:.3g}" for reward in found])
