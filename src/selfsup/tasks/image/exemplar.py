"""Exemplar (Dosovitskiy et al., 2014): each patch is a class, of all that it becomes by transformations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.losses import full, product
from selfsup.nn.distributed import gather
from selfsup.nn.heads import mlp
from selfsup.nn.image.patches import by_energy, encode, room, side_for
from selfsup.nn.image.recolor import recoloured
from selfsup.nn.noise import uniform
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.image import Crop, ImageViews


class Exemplar(Task):
    """Tell whether two transformed patches were made from the same seed patch (Dosovitskiy et al., 2014, section 2).

    Each image gives one surrogate class: of at most 64 pixels the whole image, of more a seed patch of a third of
    its side (or of `patch` pixels), whose place is drawn by the energy of the gradient there and stays the same.
    A class has no weights of its own, so that there may be any number: as in later work (Doersch & Zisserman, 2017,
    section 3) two transformed patches of a seed must be nearer to each other than to those of the other seeds in the
    batch by `margin`, in cosine distance. The mean is over all triplets of the global batch. Chance is `margin`.

    Transformations (section 2.1): `shift` by up to a share of the patch; `zoom` by a factor; `turn` by up to so many
    degrees; colours: the projections on the principal components of the patch's colours times 0.5 to 2, saturation and
    value to a power of 0.25 to 4, times 0.7 to 1.4, plus -0.1 to 0.1, hue plus -0.1 to 0.1 of a turn.

    Counter-measures: `colour` is the change of colours, without which they alone tell a seed from all others.

    Batch: `x` (B, C, H, W) float, `noise` (B,) int64, and `index`, by which a seed's place is drawn.
    Published: STL-10 74.2, CIFAR-10 84.3, with a softmax over 8,000 classes of 100 samples.

    Deviations: triplets instead of the softmax over all classes; new transformations each epoch instead of a fixed set
    of samples. Images of other than 3 channels have no saturation and hue, their channels alone are changed.
    """

    paper = "Dosovitskiy et al., 2014"
    section = "images: patches"
    counters = {"colours": {"colour": True}}  # noqa: RUF012

    def __init__(
        self,
        encoder: Encoder,
        *,
        patch: int = 0,
        margin: float = 0.5,
        shift: float = 0.2,
        zoom: float = 1.4,
        turn: float = 20.0,
        colour: bool = True,
        hidden: int = 256,
        dim: int = 128,
    ) -> None:
        super().__init__(encoder)
        spec: ImageSpec = encoder.spec
        self.patch = patch or (spec.size if spec.size <= 64 else spec.size // 3)
        self.size = room(spec, self.patch, given=patch > 0)
        self.margin, self.shift, self.zoom, self.turn, self.colour = margin, shift, zoom, turn, colour
        self.side = side_for(encoder, self.patch)
        self.head = mlp(encoder.dim, hidden, dim)

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return the images as they are."""
        return ImageViews(spec, {"x": Crop(self.size)}, noise=True)

    def seeds(self, batch: Batch) -> Tensor:
        """Return the middle (B, 2) of each seed patch: x and y in -1..1."""
        corner = by_energy(batch["x"], self.patch, uniform(batch["index"], 1))
        return (2 * corner + self.patch) / self.size - 1

    def samples_of(self, batch: Batch, stream: int) -> Tensor:
        """Return a transformed patch of each seed (B, C, patch, patch)."""
        x, u = batch["x"], 2 * uniform(batch["noise"], 16, stream=stream) - 1
        share = self.patch / self.size
        angle, scale = u[:, 0] * math.radians(self.turn), share * self.zoom ** u[:, 1]
        cos, sin = angle.cos() * scale, angle.sin() * scale
        middle = self.seeds(batch) + 2 * self.shift * share * u[:, 2:4]
        turned = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1), middle], 2)
        grid = F.affine_grid(turned, [len(x), 1, self.patch, self.patch], align_corners=False)
        patches = F.grid_sample(x, grid.to(x.dtype), padding_mode="border", align_corners=False)
        return recoloured(patches, u[:, 4:], self.encoder.spec) if self.colour else patches

    def embedded(self, patches: Tensor) -> Tensor:
        """Return embeddings (B, N, dim) of unit length of patches (B, N, C, h, w)."""
        z = full(self.head(encode(self.encoder, patches, self.side).flatten(0, 1)))
        return F.normalize(z.view(*patches.shape[:2], -1), dim=2)

    def loss(self, batch: Batch) -> Loss:
        """Return the mean of the triplets' hinge."""
        pairs = torch.stack([self.samples_of(batch, 1), self.samples_of(batch, 2)], 1)
        z = gather(self.embedded(pairs)).transpose(0, 1).flatten(0, 1)
        distance = 1 - product(z, z.T)
        seed = torch.arange(len(z), device=z.device) % (len(z) // 2)
        other = seed[:, None] != seed
        near = distance.diagonal(len(z) // 2).repeat(2)[:, None]
        hinge = F.relu(self.margin + near - distance)[other]
        return Loss(hinge.mean(), {"triplets_right": (near < distance)[other].float().mean()}, self.margin)

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return each seed's image beside four of its samples, with the class to which the nearest seed belongs."""
        samples = torch.stack([self.samples_of(batch, stream) for stream in range(1, 5)], 1)
        captions = [[f"class {index}"] * 4 for index in batch["index"].tolist()]
        if guess:
            z = self.embedded(samples)
            alike = torch.einsum("asd,btd->asbt", z, z)
            alike.diagonal(dim1=1, dim2=3).fill_(-1)  # of another sample
            nearest = batch["index"][alike.amax(3).argmax(2)].tolist()
            captions = [[f"guess: {index}" for index in row] for row in nearest]
        return [
            [Panel(x, f"class {index}"), *map(Panel, row, texts)]
            for x, index, row, texts in zip(batch["x"], batch["index"].tolist(), samples, captions, strict=True)
        ]
