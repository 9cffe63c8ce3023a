"""CC-RIG (Nair et al., 2019): a β-VAE that is told the scene, so that imagined goals can be reached in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from selfsup.data.trajectory import observations
from selfsup.losses import full, normal_kl, normal_nats
from selfsup.nn import noise
from selfsup.nn.control.conditional import Conditional
from selfsup.nn.image.decoder import Decoder
from selfsup.source import Source
from selfsup.spec import TrajectorySpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.trajectory import ObservationViews


class CCRIG(Task):
    """Infer what can change in a scene apart from what cannot, which the first observation tells (Nair et al., 2019).

    c = e₀(s₀) is the code of the scene, z that of what is there now: q(z | s, c) is normal, and s is decoded from both.
    s₀ is decoded from c alone, by a decoder of its own, so that c says what the scene looks like. The loss is
    -E log p(s|z, c) - log p(s₀|c) + `beta` · KL(q || N(0, I)) in nats, summed over pixels. The representation is μ and
    c side by side; of a single observation, which is taken for a first one.

    `selfsup control cc_rig ENV` imagines goals by drawing z, with the c of the scene that the agent is in.

    Batch: `x` (B, C, H, W) float; `first` the same, the first observation of the episode; `noise` (B,) int64, the key
    from which z is drawn.
    Published: on scenes with new colours and objects goals of CC-RIG are reached, those of RIG are not.

    Deviations: LayerNorm of the features in place of BatchNorm; no dropout; p(x|z) is normal; both encoders begin with
    the same weights.

    Args:
        latent_dim: Dimension of z, in [1, inf).
        context_dim: Dimension of c, in [1, inf).
        beta: Weight of the KL divergence, in [0, inf).
        decoder_dim: Channels of the decoders at their highest resolution, in [1, inf).
    """

    paper = "Nair et al., 2019"
    section = "control: goals"
    imagines_goals = True  # which an agent can learn to reach, `selfsup control`, and `decoder` draws
    kind = "trajectory"
    default_encoder, small_encoder = "place-cnn", "nature-cnn"
    coupled = False

    def __init__(
        self, encoder: Encoder, *, latent_dim: int = 4, context_dim: int = 8, beta: float = 2.0, decoder_dim: int = 8
    ) -> None:
        super().__init__(encoder)
        self.beta, self.conditional = beta, Conditional(encoder, latent_dim, context_dim)
        self.log_variance = nn.Linear(encoder.dim + context_dim, latent_dim)
        image = encoder.spec.image
        self.decoder = Decoder(latent_dim + context_dim, image, width=decoder_dim)
        self.scene_decoder = Decoder(context_dim, image, width=decoder_dim)

    def samples(self, source: Any) -> Source:
        """Return every observation."""
        return observations(source)

    def views(self, spec: TrajectorySpec) -> ObservationViews:
        """Return observations, the first ones of their episodes, and the keys of their codes."""
        return ObservationViews(spec, first=True, noise=True)

    def posterior(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and the log-variance of q(z|x, c), (B, latent_dim) each."""
        features = self.conditional.features(x, context)
        return full(self.conditional.latent(features)), full(self.log_variance(features))

    def loss(self, batch: Batch) -> Loss:
        """Return the negative evidence lower bound, with `beta`, and the nats of the first observation."""
        context = self.conditional.context(batch["first"])
        mean, log_variance = self.posterior(batch["x"], context)
        z = noise.sample(mean, log_variance, batch["noise"])
        reconstruction = normal_nats(self.decoder(torch.cat([z, context], 1)), batch["x"])
        scene, kl = normal_nats(self.scene_decoder(context), batch["first"]), normal_kl(mean, log_variance)
        parts = {"reconstruction": reconstruction, "scene": scene, "kl": kl}
        metrics = {name: part.detach().mean() for name, part in parts.items()}
        return Loss((reconstruction + scene + self.beta * kl).mean(), metrics)

    def representation(self) -> Encoder:
        """Return the encoder whose output is μ and c."""
        return self.conditional

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return first and present observation, their reconstructions, and a goal imagined in the same scene."""
        if not guess:
            return [
                [Panel(first, "first observation"), Panel(x, "input and target")]
                for first, x in zip(batch["first"], batch["x"], strict=True)
            ]
        context = self.conditional.context(batch["first"])
        mean, _ = self.posterior(batch["x"], context)
        drawn = mean.mean(0) + mean.std(0, correction=0) * noise.normal(batch["noise"], mean.shape[1], stream=1)
        again, goals = (self.decoder(torch.cat([z, context], 1)) for z in (mean, drawn))
        columns = (batch["first"], self.scene_decoder(context), batch["x"], again, goals)
        told = ("first observation", "from c", "input", "reconstruction", "imagined goal")
        return [
            [Panel(image, words) for image, words in zip(row, told, strict=True)] for row in zip(*columns, strict=True)
        ]
