"""VAE (Kingma and Welling, 2014) and β-VAE (Higgins et al., 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from selfsup.base.distributed import gather
from selfsup.losses import full, normal_kl, normal_nats
from selfsup.nn import noise
from selfsup.nn.coded import Coded
from selfsup.nn.image.decoder import Decoder
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.image import Crop, ImageViews

DEAD = 0.01  # variance of a unit's mean over the data, in units of the prior's, below which it says nothing


class VAE(Task):
    """Infer a latent code from which the image can be generated (Kingma and Welling, 2014, section 3; β-VAE: eq. 4).

    The encoder gives the mean μ and the log-variance of a normal q(z|x), the decoder the mean of a normal p(x|z) with
    unit variance over the normalized pixels. The loss is -E log p(x|z) + `beta` · KL(q || N(0, I)) in nats per image,
    without the constant. The reconstruction is summed over pixels: a mean would change what `beta` means. The
    representation is μ, so its linear layer stays with the encoder.

    Many units of μ stay at the prior and say nothing of the image. A reader that gives all the same scale would enlarge
    their noise, so in the representation those whose variance over the images is below 0.01 are 0 (the measure of
    Burda et al., 2016, section 3); the metric `active` counts the others.

    Batch: `x` (B, C, H, W) float; `noise` (B,) int64, the key from which z is drawn.
    Published: `beta` = 4 and more disentangles the factors of faces and chairs (Higgins et al., 2017, section 4).

    Deviations: p(x|z) is normal, which suits any image; the 2014 paper uses a Bernoulli distribution for MNIST.

    Args:
        latent_dim: Dimension of the latent code, in [1, inf).
        beta: Weight of the KL divergence; 1 is the VAE, more a β-VAE, in [0, inf).
        pad: Largest shift of the image in pixels, over black, in [0, inf).
        flip: Probability of mirroring the image, in [0, 1].
        decoder_dim: Channels of the decoder at its highest resolution, in [1, inf).
    """

    paper = "Kingma & Welling, 2014"
    section = "images: generative"
    coupled = False

    spread: Tensor
    active: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        latent_dim: int = 64,
        beta: float = 1.0,
        pad: int = 0,
        flip: float = 0.0,
        decoder_dim: int = 32,
    ) -> None:
        super().__init__(encoder)
        self.beta, self.pad, self.flip = beta, pad, flip
        self.mean, self.log_variance = nn.Linear(encoder.dim, latent_dim), nn.Linear(encoder.dim, latent_dim)
        self.decoder = Decoder(latent_dim, encoder.spec, width=decoder_dim)
        self.register_buffer("spread", torch.ones(latent_dim))  # variance of each unit, averaged over some steps
        self.register_buffer("active", torch.ones(latent_dim))
        self.seen: Tensor | None = None

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return images and the keys of their latent codes."""
        return ImageViews(spec, {"x": Crop(spec.size, pad=self.pad, flip=self.flip)}, noise=True)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and the log-variance of q(z|x), (B, latent_dim) each."""
        features = self.encoder(x)
        return full(self.mean(features)), full(self.log_variance(features))

    def loss(self, batch: Batch) -> Loss:
        """Return the negative evidence lower bound (ELBO), with `beta`."""
        x = batch["x"]
        mean, log_variance = self.posterior(x)
        z = noise.sample(mean, log_variance, batch["noise"])
        reconstruction, kl = normal_nats(self.decoder(z), x), normal_kl(mean, log_variance)
        self.seen = mean.detach()
        metrics = {"reconstruction": reconstruction.detach().mean(), "kl": kl.detach().mean()}
        return Loss((reconstruction + self.beta * kl).mean(), metrics | {"active": self.active.sum()})

    @torch.no_grad()
    def after_step(self) -> None:
        """Note which units say something of the images."""
        if self.seen is not None and len(mean := gather(self.seen)) > 1:
            self.spread.lerp_(mean.var(0).to(self.spread.dtype), 0.1)
            active = self.spread > DEAD
            self.active.copy_(active | ~active.any())
        self.seen = None

    def representation(self) -> Encoder:
        """Return the encoder whose output is μ, without what its dead units say."""
        return Coded(self.encoder, self.mean, self.active)

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return each image and its reconstruction from μ, beside a sample from the prior."""
        x = batch["x"]
        if not guess:
            return [[Panel(image, "input"), Panel(image, "target")] for image in x]
        mean, _ = self.posterior(x)
        reconstruction = self.decoder(mean)
        errors = normal_nats(reconstruction, x).tolist()
        samples = self.decoder(noise.normal(batch["noise"], mean.shape[1], stream=1))
        return [
            [Panel(image, "input"), Panel(r, f"reconstruction, {error:.0f} nats"), Panel(sample, "sample")]
            for image, r, error, sample in zip(x, reconstruction, errors, samples, strict=True)
        ]
