"""VAE (Kingma and Welling, 2014) and β-VAE (Higgins et al., 2017)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from selfsup.errors import UserError
from selfsup.losses import full
from selfsup.nn import noise
from selfsup.nn.coded import Coded
from selfsup.nn.image.decoder import Decoder
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.image import Crop, ImageViews


class VAE(Task):
    """Infer a code from which the image can be generated (Kingma and Welling, 2014, section 3; β-VAE: eq. 4).

    The encoder gives the mean μ and the log-variance of a normal q(z|x) over `latent` numbers, the decoder the mean of
    a normal p(x|z) of variance 1 in units of the normalized values. Minimised is -E log p(x|z) + `beta` · KL(q || N(0,
    I)), in nats an image and without the constant: the reconstruction is a sum over pixels, for as a mean it would
    change what `beta` means. The representation is μ, so its linear layer is kept with the encoder.

    Batch: `x` (B, C, H, W) float; `noise` (B,) int64, the key of z.
    Published: `beta` = 4 and more disentangles the factors of faces and chairs (Higgins et al., 2017, section 4).

    Deviations: the pixels of p(x|z) are normal, which suits any image; the 2014 paper takes Bernoulli ones for MNIST.
    """

    paper = "Kingma & Welling, 2014"
    section = "images: generative"
    coupled = False

    def __init__(
        self,
        encoder: Encoder,
        *,
        latent: int = 64,
        beta: float = 1.0,
        pad: int = 0,
        flip: float = 0.0,
        width: int = 32,
    ) -> None:
        super().__init__(encoder)
        if latent < 1 or beta < 0:
            raise UserError(f"--latent is at least 1 and --beta at least 0, not {latent} and {beta}")
        self.beta, self.pad, self.flip = beta, pad, flip
        self.mean, self.log_variance = nn.Linear(encoder.dim, latent), nn.Linear(encoder.dim, latent)
        self.decoder = Decoder(latent, encoder.spec, width=width)

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return images and the keys of their codes."""
        return ImageViews(spec, {"x": Crop(spec.size, pad=self.pad, flip=self.flip)}, noise=True)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and the log-variance of q(z|x), (B, latent) each."""
        features = self.encoder(x)
        return full(self.mean(features)), full(self.log_variance(features))

    def loss(self, batch: Batch) -> Loss:
        """Return the negative evidence bound, with `beta`."""
        x = batch["x"]
        mean, log_variance = self.posterior(x)
        z = mean + (0.5 * log_variance).exp() * noise.normal(batch["noise"], mean.shape[1])
        reconstruction = 0.5 * (self.decoder(z) - x).square().flatten(1).sum(1)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        metrics = {"reconstruction": reconstruction.detach().mean(), "kl": kl.detach().mean()}
        return Loss((reconstruction + self.beta * kl).mean(), metrics)

    def representation(self) -> Encoder:
        """Return the encoder whose output is μ."""
        return Coded(self.encoder, self.mean)

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return each image and its reconstruction from μ, beside a sample from the prior."""
        x = batch["x"]
        if not guess:
            return [[Panel(image, "in"), Panel(image, "target")] for image in x]
        mean, _ = self.posterior(x)
        rebuilt = self.decoder(mean)
        errors = (0.5 * (rebuilt - x).square()).flatten(1).sum(1).tolist()
        samples = self.decoder(noise.normal(batch["noise"], mean.shape[1], stream=1))
        return [
            [Panel(image, "in"), Panel(r, f"rebuilt, {error:.0f} nats"), Panel(sample, "sample")]
            for image, r, error, sample in zip(x, rebuilt, errors, samples, strict=True)
        ]
