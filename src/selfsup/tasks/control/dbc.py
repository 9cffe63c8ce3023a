"""Deep bisimulation for control (Zhang et al., 2021): latents as far apart as their rewards and futures are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.base.distributed import gather
from selfsup.data.trajectory import transitions
from selfsup.errors import unknown
from selfsup.losses import full
from selfsup.nn import noise
from selfsup.nn.control import models
from selfsup.nn.control.latent import Latent
from selfsup.nn.control.panels import transition_panels
from selfsup.source import Source
from selfsup.spec import TrajectorySpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.tasks.control.rewards import reward_scale
from selfsup.views.trajectory import TransitionViews


class DBC(Task):
    """Make the distance of two latents that of rewards and of next latents (Zhang et al., 2021, section 4).

    `form="paper"`: (‖z - z'‖₁ - |r - r'| - γ W)², W² = ‖μ - μ'‖² + ‖σ - σ'‖². `form="code"`, of the authors: the mean
    over units i of (h(zᵢ - zᵢ') - h(r - r') - γ h(μᵢ - μᵢ'))², h of Huber; with `probabilistic` its last term is
    √((μᵢ - μᵢ')² + (σᵢ - σᵢ')²). Two models are trained beside it: μ, σ of the next latent from z and the action, which
    have no gradient in the distance, and the reward from that next latent.

    The forms are on different scales, since one squares a sum over units: `metric_weight` is 0.05 for the code's (there
    0.5, of rewards in their own unit) and 0.05 / `latent_dim`² for the paper's. Rewards make the distance: where they
    are all the same it is 0 everywhere, and such data are refused. The metric `std` is that of the latents over the
    batch: near 0 they have collapsed.

    Batch: `obs`, `next_obs` (B, S·C, H, W) float; `action` (B, A) float or (B,) int64; `reward` (B, 1) float; `noise`
    (B,) int64; `discount`, `episode` and `time` are not used.
    Published: returns on DeepMind control with videos behind; several users could not reproduce them.
    Deviations: recorded transitions alone, without a critic; one transition model, no ensemble; rewards in units of
    their std; the partner of a sample is the one before it in the shuffled batch, so that it is never itself.

    Args:
        form: `code` of the authors or `paper`.
        metric_weight: Weight of the distance's loss, by default that of the form, in [0, inf).
        latent_dim: Dimension of the latent state z, which is the representation, in [1, inf).
        hidden_dim: Width of the hidden layer of both models, in [1, inf).
        reward_scale: Rewards are divided by it; by default their std in the data, in (0, inf).
        gamma: Discount factor γ, in [0, 1).
        probabilistic: Predict the std of the next latent too.
    """

    paper = "Zhang et al., 2021"
    section = "control: rewards"
    kind = "trajectory"
    default_encoder = small_encoder = "nature-cnn"

    def __init__(
        self,
        encoder: Encoder,
        *,
        form: Literal["code", "paper"] = "code",
        metric_weight: float | None = None,
        latent_dim: int = 50,
        hidden_dim: int = 512,
        reward_scale: float | None = None,
        gamma: float = 0.99,
        probabilistic: bool = False,
    ) -> None:
        super().__init__(encoder)
        if form not in ("code", "paper"):
            raise unknown("form", form, ("code", "paper"))
        self.form, self.gamma, self.space, self.reward_scale = form, gamma, encoder.spec.action, reward_scale or 1.0
        self.metric_weight = _weight(form, latent_dim) if metric_weight is None else metric_weight
        self.latent = Latent(encoder, latent_dim)
        self.dynamics = models.Dynamics(latent_dim, self.space[1], hidden_dim, probabilistic)
        self.reward = models.layer_norm_mlp(latent_dim, hidden_dim, 1)

    @classmethod
    def resolve(cls, source: Source, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the weight of the form and the std of the rewards; `UserError` where these are all the same."""
        weight = _weight(given.get("form", "code"), given.get("latent_dim", 50))
        return {"metric_weight": weight, "reward_scale": reward_scale(source, needed=True)}

    def samples(self, source: Any) -> Source:
        """Return the transitions of all episodes."""
        return transitions(source, actions=self.space[0] != "none", rewards=True)

    def views(self, spec: TrajectorySpec) -> TransitionViews:
        """Return what was seen before and after an action."""
        return TransitionViews(spec, noise=True)

    def representation(self) -> Encoder:
        """Return the encoder up to z."""
        return self.latent

    def loss(self, batch: Batch) -> Loss:
        """Return the losses of both models, and the weighted one of the distance."""
        z, reward = full(self.latent(batch["obs"])), batch["reward"] / self.reward_scale
        with torch.no_grad():
            target = self.latent(batch["next_obs"])
        mean, sigma = self.dynamics(z, models.action_vectors(batch["action"], self.space))
        drawn = mean + sigma * noise.normal(batch["noise"], z.shape[1]) if self.dynamics.probabilistic else mean
        guess = full(self.reward(drawn))
        own, wanted = self.distances(*(gather(part) for part in (z, reward, mean.detach(), sigma.detach())))
        metric = (own - wanted).square().mean()
        value = models.normal_loss(mean, sigma, target) + F.mse_loss(guess, reward) + self.metric_weight * metric
        metrics = {"metric": metric.detach(), "std": z.detach().std(0, correction=0).mean()}
        told = {"transition": models.explained(mean, target), "reward": models.explained(guess, reward)}
        return Loss(value, metrics | told)

    def distances(self, z: Tensor, reward: Tensor, mean: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Return how far each latent is from the one before it, and how far should be: (B, d), of the paper (B, 1)."""
        dz, dr, dm, ds = (x - x.roll(1, 0) for x in (z, reward, mean, sigma))
        if self.form == "paper":
            future = torch.cat([dm, ds], 1).norm(dim=1, keepdim=True)
            return dz.abs().sum(1, keepdim=True), dr.abs() + self.gamma * future
        future = (dm.square() + ds.square()).sqrt() if self.dynamics.probabilistic else _huber(dm)
        return _huber(dz), _huber(dr) + self.gamma * future

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return both observations with action and reward; with `guess` the distance from the row above."""
        if not guess:
            return transition_panels(batch)
        z = full(self.latent(batch["obs"]))
        mean, sigma = self.dynamics(z, models.action_vectors(batch["action"], self.space))
        found = [part.mean(1).tolist() for part in self.distances(z, batch["reward"] / self.reward_scale, mean, sigma)]
        told = [f"{own:.3g} from the row above, {wanted:.3g} wanted" for own, wanted in zip(*found, strict=True)]
        return transition_panels(batch, told)


def _weight(form: str, latent_dim: int) -> float:
    return 0.05 if form == "code" else 0.05 / latent_dim**2


def _huber(x: Tensor) -> Tensor:
    return F.huber_loss(x, torch.zeros_like(x), reduction="none")
