"""RIG (Nair, Pong et al., 2018): a β-VAE whose latent space has goals and distances in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from selfsup.data.trajectory import observations
from selfsup.losses import full, normal_kl, normal_nats
from selfsup.nn import noise
from selfsup.nn.coded import Coded
from selfsup.nn.image.decoder import Decoder
from selfsup.source import Source
from selfsup.spec import TrajectorySpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.trajectory import ObservationViews


class RIG(Task):
    """Infer a latent code of an observation, in which goals are imagined and reached (Nair, Pong et al., 2018).

    The β-VAE of section 4.1: the encoder gives the mean μ and the log-variance of q(z|x), the decoder the mean of a
    normal p(x|z) with unit variance over the normalized pixels. The loss is -E log p(x|z) + `beta` · KL(q || N(0, I))
    in nats per observation, without the constant; the reconstruction is summed over pixels, as in `vae`. The
    representation is μ.

    `selfsup control rig ENV` learns to act with it: goals are drawn from a normal that is fitted to the μ of the data,
    and the reward is the distance of μ from the goal, negative (sections 4.2 and 4.3).

    Batch: `x` (B, C, H, W) float; `noise` (B,) int64, the key from which z is drawn.
    Published: final distances near those of an agent that is told the true state, on visual reaching and pushing.

    Deviations: p(x|z) is normal (the authors' code has a Bernoulli distribution); the encoder of your choice; that of
    the default says where things are: after few steps distances of other codes say little of how far two places are.

    Args:
        latent_dim: Dimension of the latent code, in [1, inf).
        beta: Weight of the KL divergence, in [0, inf).
        decoder_dim: Channels of the decoder at its highest resolution, in [1, inf).
    """

    paper = "Nair, Pong et al., 2018"
    section = "control: goals"
    imagines_goals = True  # which an agent can learn to reach, `selfsup control`, and `decoder` draws
    kind = "trajectory"
    default_encoder, small_encoder = "place-cnn", "nature-cnn"
    coupled = False

    def __init__(self, encoder: Encoder, *, latent_dim: int = 4, beta: float = 2.0, decoder_dim: int = 8) -> None:
        super().__init__(encoder)
        self.beta = beta
        self.mean, self.log_variance = nn.Linear(encoder.dim, latent_dim), nn.Linear(encoder.dim, latent_dim)
        self.decoder = Decoder(latent_dim, encoder.spec.image, width=decoder_dim)

    def samples(self, source: Any) -> Source:
        """Return every observation."""
        return observations(source)

    def views(self, spec: TrajectorySpec) -> ObservationViews:
        """Return observations and the keys of their latent codes."""
        return ObservationViews(spec, noise=True)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and the log-variance of q(z|x), (B, latent_dim) each."""
        features = self.encoder(x)
        return full(self.mean(features)), full(self.log_variance(features))

    def loss(self, batch: Batch) -> Loss:
        """Return the negative evidence lower bound, with `beta`."""
        x = batch["x"]
        mean, log_variance = self.posterior(x)
        z = noise.sample(mean, log_variance, batch["noise"])
        reconstruction, kl = normal_nats(self.decoder(z), x), normal_kl(mean, log_variance)
        metrics = {"reconstruction": reconstruction.detach().mean(), "kl": kl.detach().mean()}
        return Loss((reconstruction + self.beta * kl).mean(), metrics)

    def representation(self) -> Encoder:
        """Return the encoder whose output is μ."""
        return Coded(self.encoder, self.mean)

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return each observation and its reconstruction from μ, beside a goal imagined from the batch's own prior."""
        x = batch["x"]
        if not guess:
            return [[Panel(seen, "input"), Panel(seen, "target")] for seen in x]
        mean, _ = self.posterior(x)
        reconstruction, drawn = self.decoder(mean), noise.normal(batch["noise"], mean.shape[1], stream=1)
        goals = self.decoder(mean.mean(0) + mean.std(0, correction=0) * drawn)
        errors = normal_nats(reconstruction, x).tolist()
        return [
            [Panel(seen, "input"), Panel(again, f"reconstruction, {error:.0f} nats"), Panel(goal, "imagined goal")]
            for seen, again, error, goal in zip(x, reconstruction, errors, goals, strict=True)
        ]
