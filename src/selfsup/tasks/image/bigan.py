"""BiGAN (Donahue et al., 2017): a generator, and an encoder that inverts it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.nn import noise
from selfsup.nn.coded import Coded
from selfsup.nn.constants import mean_std
from selfsup.nn.detached import detached
from selfsup.nn.image.decoder import Decoder
from selfsup.nn.image.discriminator import Discriminator
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.tasks.image.bigan_generator import DenseGenerator
from selfsup.views.image import Crop, ImageViews


class BiGAN(Task):
    """Match pairs of image and code: (x, E(x)) and (G(z), z), z uniform on [-1, 1] (Donahue et al., 2017, section 3).

    A discriminator D learns to distinguish the pairs; E and G learn with inverted labels, to make each pair pass for
    the other (section 3.4). Both losses are computed in one step: D's on detached pairs, that of E and G with D's
    parameters held constant. E(x) is squashed into the cube that z is from, by 2 · sigmoid - 1; the representation is
    what it was before, and its linear layer is exported with the encoder. The loss is the sum of both players' losses
    and does not fall: it is 4 ln 2 = 2.773 when D cannot distinguish the pairs. The metric `discriminator` is D's own
    loss, 2 ln 2 at that point.

    The learning rate, that of `--lr`, is constant in the first half of the training and then falls exponentially to a
    hundredth (appendix A). The weights' decay is part of the gradient, as in Adam, and not of the loss that is shown.

    Batch: `x` (B, C, H, W) float; `noise` (B,) int64, the key of z.
    Published: permutation-invariant MNIST, nearest neighbour in E(x): 97.4%; VOC 60.1 / 46.9 / 35.2.
    Deviations: no normalization in a convolutional D; D sees images normalized with the spec's mean and std (the
    paper's digits are in 0..1).

    Args:
        latent_dim: Dimension of z and of the representation, in [1, inf).
        hidden_dim: Width of the fully connected hidden layers of D, and of G if `dense`, in [1, inf).
        dense: Make G and D MLPs on the flattened pixels; with the encoder `mlp` this is the permutation-invariant
            variant of section 4.2.
        pad: Largest random shift of the image, in pixels, in [0, inf).
        flip: Probability of a horizontal flip, in [0, 1].
        discriminator_dim: Channels of the first convolution of D, unused if `dense`, in [1, inf).
        l2: Half the weight of the squared weights of all three networks, whose gradient decays them, in [0, inf).
    """

    paper = "Donahue et al., 2017"
    section = "images: generative"
    coupled = False
    defaults = {"lr": 2e-4, "betas": (0.5, 0.999), "weight_decay": 0.0}  # noqa: RUF012

    def __init__(
        self,
        encoder: Encoder,
        *,
        latent_dim: int = 50,
        hidden_dim: int = 1024,
        dense: bool = False,
        pad: int = 0,
        flip: float = 0.0,
        discriminator_dim: int = 32,
        l2: float = 2.5e-5,
    ) -> None:
        super().__init__(encoder)
        spec = encoder.spec
        self.latent_dim, self.pad, self.flip, self.l2 = latent_dim, pad, flip, l2
        self.code = nn.Linear(encoder.dim, latent_dim)
        self.generator = DenseGenerator(latent_dim, hidden_dim, spec) if dense else Decoder(latent_dim, spec)
        self.discriminator = Discriminator(spec, latent_dim, width=discriminator_dim, hidden=hidden_dim, dense=dense)

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return images and the keys that their codes are drawn from."""
        return ImageViews(spec, {"x": Crop(spec.size, pad=self.pad, flip=self.flip)}, noise=True)

    def draw(self, key: Tensor) -> Tensor:
        """Return z (B, latent_dim)."""
        return 2 * noise.uniform(key, self.latent_dim) - 1

    def generate(self, z: Tensor) -> Tensor:
        """(B, latent_dim) -> (B, C, H, W): pixels in 0..1, then normalized."""
        pixels = torch.sigmoid(self.generator(z))
        mean, std = mean_std(self.encoder.spec, z)
        return (pixels - mean) / std

    def infer(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, latent_dim): E(x), in the cube."""
        return 2 * torch.sigmoid(self.code(self.encoder(x))) - 1

    def loss(self, batch: Batch) -> Loss:
        """Return the sum of both players' losses, each with the other's parameters held constant."""
        x, z = batch["x"], self.draw(batch["noise"]).to(batch["x"].dtype)
        pairs = (x, self.infer(x)), (self.generate(z), z)
        encoded, generated = (self.discriminator(image.detach(), code.detach()) for image, code in pairs)
        of_discriminator = (F.softplus(-encoded) + F.softplus(generated)).mean()
        encoded, generated = (detached(self.discriminator, image, code) for image, code in pairs)
        of_generator = (F.softplus(encoded) + F.softplus(-generated)).mean()
        metrics = {"discriminator": of_discriminator.detach(), "generator": of_generator.detach()}
        decay = self.l2 / 2 * torch.stack([p.square().sum() for p in self.parameters() if p.ndim > 1]).sum()
        return Loss(of_discriminator + of_generator + decay - decay.detach(), metrics)

    def lr_of(self, child: str, scheduled: float, peak: float) -> float:
        """Return the peak for the first half, then what falls from there to a hundredth."""
        return peak * 0.01 ** max(0.0, 2 * self.progress - 1)

    def representation(self) -> Encoder:
        """Return E, the encoder with its linear layer."""
        return Coded(self.encoder, self.code)

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return each image beside a generated one; with `guess` its reconstruction G(E(x)) too."""
        x = batch["x"]
        columns = [(x, "x"), (self.generate(self.draw(batch["noise"])), "G(z)")]
        if guess:
            columns.append((self.generate(self.infer(x)), "G(E(x))"))
        return [[Panel(images[i], caption) for images, caption in columns] for i in range(len(x))]
