"""MAE (He et al., 2022): see a quarter of the patches, and paint the others."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from selfsup.errors import UserError
from selfsup.losses import full
from selfsup.nn import noise
from selfsup.nn.image.mask_decoder import MaskDecoder
from selfsup.nn.image.masks import grid_of, mask_of, only, patchify, take, unpatchify
from selfsup.spec import ImageSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.image import Crop, ImageViews


class MAE(Task):
    """Paint the patches that were left out (He et al., 2022, section 3).

    A share `masked` of the patches, others for each image, is left out before the encoder, which works on the rest
    alone; a small decoder gets its tokens and the places of the hidden patches. The loss is the mean square error of
    the hidden patches, each less its mean and over its deviation, √(variance + 1e-6); `--no-normalize` takes plain
    pixels. Chance is 1, less where patches are flat; `explained` is the share of the variance that is predicted.

    Batch: `x` (B, C, H, W) float; `noise` (B,) int64, from which patches are chosen.
    Published: ImageNet, ViT-B fine-tuned 83.6%, linear 68.0%.

    Deviations: the decoder is `depth` blocks of `width`, for a small encoder and small data; the paper has 8 of 512. It
    gets no token of a masked patch but asks at its place. Learning rate 2e-3 at a batch of 128 for a narrow encoder;
    the paper 1.5e-4 · batch / 256 for wide ones.
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
        masked: float = 0.75,
        width: int = 64,
        depth: int = 2,
        normalise: bool = True,
        least: float = 0.2,
        flip: float = 0.5,
    ) -> None:
        super().__init__(encoder)
        self.patches = grid_of(encoder) ** 2
        self.kept = round(self.patches * (1 - masked))
        if not 0 < self.kept < self.patches:
            raise UserError(f"--masked {masked} leaves {self.kept} of {self.patches} patches: 0.75, for example")
        self.normalise, self.least, self.flip = normalise, least, flip
        pixels = self.encoder.patch**2 * encoder.spec.channels
        self.decoder = MaskDecoder(encoder.dim, self.encoder.grid, pixels, width=width, depth=depth)

    def views(self, spec: ImageSpec) -> ImageViews:
        """Return crops of at least the share `least` of the image, perhaps mirrored."""
        crop = Crop(spec.size, scale=(self.least, 1), bicubic=True, flip=self.flip)
        return ImageViews(spec, {"x": crop}, noise=True)

    def loss(self, batch: Batch) -> Loss:
        """Return the error of the hidden patches."""
        painted, _, hidden = self._paint(batch)
        pixels = take(patchify(batch["x"], self.encoder.patch), hidden)
        mean, deviation = self._scale(pixels)
        target = (pixels - mean) / deviation
        value = (full(painted) - target).square().mean()
        blind = (target - target.mean()).square().mean()
        return Loss(value, {"explained": 1 - value.detach() / blind}, 1.0 if self.normalise else None)

    def _paint(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return the hidden patches as predicted, and the numbers of the patches kept and hidden."""
        keep, hidden = noise.shuffles(batch["noise"], self.patches).tensor_split([self.kept], 1)
        return self.decoder(self.encoder.tokens(batch["x"], keep), keep, hidden), keep, hidden

    def _scale(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        if not self.normalise:
            return pixels.new_zeros(()), pixels.new_ones(())
        return pixels.mean(2, keepdim=True), (pixels.var(2, keepdim=True) + 1e-6).sqrt()

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return what is seen of each image; what is painted, on the patch's own mean and deviation; the image."""
        x = batch["x"]
        painted, keep, hidden = self._paint(batch)
        pictures = [(only(x, mask_of(keep, self.patches)), f"sees {self.kept} of {self.patches}")]
        if guess:
            patches = patchify(x, self.encoder.patch)
            mean, deviation = self._scale(take(patches, hidden))
            place = hidden[..., None].expand(-1, -1, patches.shape[2])
            whole = patches.scatter(1, place, full(painted) * deviation + mean)
            pictures += [(unpatchify(whole, x.shape[1]), "painted")]
        pictures += [(x, "the image")]
        return [[Panel(images[row], words) for images, words in pictures] for row in range(len(x))]
