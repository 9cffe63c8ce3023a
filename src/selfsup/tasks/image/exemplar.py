"""Exemplar (Dosovitskiy et al., 2014): each patch is a class, whose samples are its transformed versions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.base.distributed import gather
from selfsup.losses import full, product
from selfsup.nn.heads import mlp
from selfsup.nn.image.patches import by_energy, encode, room, side_for
from selfsup.nn.image.recolor import recoloured
from selfsup.nn.noise import uniform
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.image import Crop, ImageViews


class Exemplar(Task):
    """Tell whether two transformed patches were made from the same seed patch (Dosovitskiy et al., 2014, section 2).

    Each image gives one surrogate class. Its seed is the whole image up to 64 pixels, and otherwise a patch whose place
    is drawn once, in proportion to the energy of the gradient there. Classes have no weights of their own, so that
    there may be any number of them: as in later work (Doersch & Zisserman, 2017, section 3), two transformed patches of
    a seed must be closer to each other than to those of the other seeds in the batch, by a margin in cosine distance.
    The mean is over all triplets of the global batch. Chance is the margin; with a single image, where there are none,
    it is 0, as the loss is.

    Transformations (section 2.1): translation, scaling, rotation and, with `colour`: the projections on the principal
    components of the patch's colours times 0.5 to 2, saturation and value to a power of 0.25 to 4, times 0.7 to 1.4,
    plus -0.1 to 0.1, hue plus -0.1 to 0.1 of the circle.

    Counter-measures: `colour`, without which the colours alone tell one seed from all others.

    Batch: `x` (B, C, H, W) float, `noise` (B,) int64, and `index` (B,) int64, from which a seed's place is drawn.
    Published: STL-10 74.2, CIFAR-10 84.3, with a softmax over 8,000 classes of 100 samples.

    Deviations: triplets instead of the softmax over all classes; new transformations each epoch instead of a fixed set
    of samples. Images without exactly 3 channels have no saturation and hue: only their channels are changed.

    Args:
        patch_size: Side of the seed patch in pixels; 0: the whole image up to 64 pixels, else a third of its side,
            in [0, inf).
        margin: Margin of the triplet loss, in cosine distance, in (0, inf).
        shift: Largest translation, as a fraction of the patch, in [0, inf).
        zoom: Largest factor by which a patch is scaled up or down, in [1, inf).
        degrees: Largest angle of rotation, in [0, 180].
        colour: Whether colours and contrast change.
        hidden_dim: Width of the hidden layer of the head, in [1, inf).
        out_dim: Dimension of the embedding that the loss compares, in [1, inf).
    """

    paper = "Dosovitskiy et al., 2014"
    section = "images: patches"
    counters = {"colours": {"colour": True}}  # noqa: RUF012

    def __init__(
        self,
        encoder: Encoder,
        *,
        patch_size: int = 0,
        margin: float = 0.5,
        shift: float = 0.2,
        zoom: float = 1.4,
        degrees: float = 20.0,
        colour: bool = True,
        hidden_dim: int = 256,
        out_dim: int = 128,
    ) -> None:
        super().__init__(encoder)
        spec: ImageSpec = encoder.spec
        self.patch_size = patch_size or (spec.size if spec.size <= 64 else spec.size // 3)
        self.size = room(spec, self.patch_size, given=patch_size > 0)
        self.margin, self.shift, self.zoom, self.degrees, self.colour = margin, shift, zoom, degrees, colour
        self.side = side_for(encoder, self.patch_size)
        self.head = mlp(encoder.dim, hidden_dim, out_dim)

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return the images unchanged."""
        return ImageViews(spec, {"x": Crop(self.size)}, noise=True)

    def seeds(self, batch: Batch) -> Tensor:
        """Return the centre (B, 2) of each seed patch: x and y in -1..1."""
        corner = by_energy(batch["x"], self.patch_size, uniform(batch["index"], 1))
        return (2 * corner + self.patch_size) / self.size - 1

    def samples_of(self, batch: Batch, stream: int) -> Tensor:
        """Return a transformed patch of each seed (B, C, patch_size, patch_size)."""
        x, u = batch["x"], 2 * uniform(batch["noise"], 16, stream=stream) - 1
        fraction = self.patch_size / self.size
        angle, scale = u[:, 0] * math.radians(self.degrees), fraction * self.zoom ** u[:, 1]
        cos, sin = angle.cos() * scale, angle.sin() * scale
        centre = self.seeds(batch) + 2 * self.shift * fraction * u[:, 2:4]
        affine = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1), centre], 2)
        grid = F.affine_grid(affine, [len(x), 1, self.patch_size, self.patch_size], align_corners=False)
        patches = F.grid_sample(x, grid.to(x.dtype), padding_mode="border", align_corners=False)
        return recoloured(patches, u[:, 4:], self.encoder.spec) if self.colour else patches

    def embed(self, patches: Tensor) -> Tensor:
        """(B, N, C, h, w) -> (B, N, out_dim), of unit length."""
        z = full(self.head(encode(self.encoder, patches, self.side).flatten(0, 1)))
        return F.normalize(z.view(*patches.shape[:2], -1), dim=2)

    def loss(self, batch: Batch) -> Loss:
        """Return the triplet loss."""
        pairs = torch.stack([self.samples_of(batch, 1), self.samples_of(batch, 2)], 1)
        z = gather(self.embed(pairs)).transpose(0, 1).flatten(0, 1)
        distance = 1 - product(z, z.T)
        seed = torch.arange(len(z), device=z.device) % (len(z) // 2)
        negative = seed[:, None] != seed
        positive = distance.diagonal(len(z) // 2).repeat(2)[:, None]
        count = negative.sum().clamp_min(1)
        hinge = F.relu(self.margin + positive - distance)[negative].sum() / count
        right = (positive < distance)[negative].sum() / count
        return Loss(hinge, {"triplets_right": right}, self.margin if len(z) > 2 else 0.0)

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return each image beside four samples of its class; with `guess` the class nearest to each sample."""
        samples = torch.stack([self.samples_of(batch, stream) for stream in range(1, 5)], 1)
        captions = [[f"class {index}"] * 4 for index in batch["index"].tolist()]
        if guess:
            z = self.embed(samples)
            cosine = torch.einsum("asd,btd->asbt", z, z)
            cosine.diagonal(dim1=1, dim2=3).fill_(-1)  # the sample itself
            nearest = batch["index"][cosine.amax(3).argmax(2)].tolist()
            captions = [[f"guess: {index}" for index in row] for row in nearest]
        return [
            [Panel(x, f"class {index}"), *map(Panel, row, texts)]
            for x, index, row, texts in zip(batch["x"], batch["index"].tolist(), samples, captions, strict=True)
        ]
