"""MAE (He et al., 2022): reconstruct an image from a quarter of its patches."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from selfsup.errors import UserError
from selfsup.nn import noise
from selfsup.nn.image.mask_decoder import MaskDecoder
from selfsup.nn.image.masks import grid_of, mask_of, only, patchify, take, unpatchify
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.image import Crop, ImageViews


class MAE(Task):
    """Reconstruct masked patches from the visible ones (He et al., 2022, section 3).

    Random patches of each image are masked. The encoder sees the visible ones alone; a small decoder gets their tokens
    and the positions of the masked patches. The loss is the mean squared error over the masked patches; with
    `normalize` each patch less its mean and divided by its standard deviation, √(variance + 1e-6). Chance is 1 with
    `normalize`, and less where patches are flat; `explained` is the fraction of the variance that is predicted.

    Batch: `x` (B, C, H, W) float; `noise` (B,) int64, from which the masks are drawn.
    Published: ImageNet, ViT-B fine-tuned 83.6%, linear 68.0%.

    Deviations: a smaller decoder for a narrow encoder and small data. Learning rate 2e-3 at a batch of 128 for a narrow
    encoder; the paper's 1.5e-4 · batch / 256 for wide ones.

    Args:
        mask_ratio: Fraction of the patches that is masked, in (0, 1).
        decoder_dim: Width of the decoder, a multiple of 4; by default two thirds of the encoder's, in whole 64s from 64
            to the paper's 512, which is that of ViT-B, in [4, inf).
        decoder_depth: Blocks of the decoder; 8 in the paper, in [1, inf).
        normalize: Whether the targets are normalized by the mean and standard deviation of their patch.
        min_scale: Smallest area of a crop as a fraction of the image, in (0, 1].
        flip: Probability that an image is mirrored, in [0, 1].
    """

    paper = "He et al., 2022"
    section = "images: masked"
    default_encoder = "vit"
    small_encoder = "vit-mini"
    defaults = {"lr": 2e-3, "betas": (0.9, 0.95), "warmup": 0.1}  # noqa: RUF012
    coupled = False

    def __init__(
        self,
        encoder: Encoder,
        *,
        mask_ratio: float = 0.75,
        decoder_dim: int | None = None,
        decoder_depth: int = 2,
        normalize: bool = True,
        min_scale: float = 0.2,
        flip: float = 0.5,
    ) -> None:
        super().__init__(encoder)
        self.patches = grid_of(encoder) ** 2
        self.visible = round(self.patches * (1 - mask_ratio))
        if not 0 < self.visible < self.patches:
            raise UserError(f"--mask-ratio {mask_ratio} leaves {self.visible} of {self.patches} patches: try 0.75")
        self.normalize, self.min_scale, self.flip = normalize, min_scale, flip
        pixels = self.encoder.patch**2 * encoder.spec.channels
        width = decoder_width(encoder.dim) if decoder_dim is None else decoder_dim
        self.decoder = MaskDecoder(encoder.dim, self.encoder.grid, pixels, width=width, depth=decoder_depth)

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return random crops, some of them mirrored."""
        crop = Crop(spec.size, scale=(self.min_scale, 1), bicubic=True, flip=self.flip)
        return ImageViews(spec, {"x": crop}, noise=True)

    def loss(self, batch: Batch) -> Loss:
        """Return the error of the masked patches."""
        predicted, _, masked = self._predict(batch)
        pixels = take(patchify(batch["x"], self.encoder.patch), masked)
        mean, std = self._statistics(pixels)
        target = (pixels - mean) / std
        value = (predicted - target).square().mean()
        variance = (target - target.mean()).square().mean()
        return Loss(value, {"explained": 1 - value.detach() / variance}, 1.0 if self.normalize else None)

    def _predict(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return the predicted patches, and the numbers of the visible and of the masked patches."""
        visible, masked = noise.shuffles(batch["noise"], self.patches).tensor_split([self.visible], 1)
        return self.decoder(self.encoder.tokens(batch["x"], visible), visible, masked), visible, masked

    def _statistics(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and the standard deviation by which patches are normalized."""
        if not self.normalize:
            return pixels.new_zeros(()), pixels.new_ones(())
        return pixels.mean(2, keepdim=True), (pixels.var(2, keepdim=True) + 1e-6).sqrt()

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the visible patches; with `guess` the reconstruction, at each patch's true mean and std; the image."""
        x = batch["x"]
        predicted, visible, masked = self._predict(batch)
        columns = [(only(x, mask_of(visible, self.patches)), f"visible: {self.visible} of {self.patches} patches")]
        if guess:
            patches = patchify(x, self.encoder.patch)
            mean, std = self._statistics(take(patches, masked))
            places = masked[..., None].expand(-1, -1, patches.shape[2])
            filled = patches.scatter(1, places, predicted * std + mean)
            columns += [(unpatchify(filled, x.shape[1]), "reconstruction")]
        columns += [(x, "image")]
        return [[Panel(images[row], caption) for images, caption in columns] for row in range(len(x))]


def decoder_width(dim: int) -> int:
    """Return the width of the decoder of an encoder `dim` wide."""
    return min(max(dim * 2 // 3 // 64, 1) * 64, 512)
