"""VideoMAE (Tong et al., 2022): reconstruct a clip from a tenth of its tubes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from selfsup.encoders.video.vit_clip import cubes, uncubes
from selfsup.nn import noise
from selfsup.nn.image.mask_decoder import MaskDecoder
from selfsup.nn.image.masks import mask_of, take
from selfsup.spec import ClipSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.tasks.video.tubes import check_tubes, everywhere
from selfsup.views.image import Crop
from selfsup.views.video import ClipViews, Cut


class VideoMAE(Task):
    """Reconstruct masked tubes of a clip from the visible ones (Tong et al., 2022, section 3).

    One mask of 90% of the patches is drawn for each clip and is the same at all times: otherwise a masked cube could be
    copied from the frame before. The encoder sees the visible cubes alone. Targets are pixels, normalized in each cube
    and channel by their mean and standard deviation; the loss is the mean squared error over masked cubes. Chance is 1.

    Counter-measures: tubes.

    Batch: `clip` (B, T, C, H, W) float; `noise` (B,) int64, from which the masks are drawn.
    Published: Something-Something V2, ViT-B fine-tuned 70.8%; UCF101 91.3%.

    Deviations: a small encoder and decoder, fewer frames. Learning rate 1e-3 at a batch of 32; the paper 1.5e-4 · batch
    / 256 for wide encoders.

    Args:
        mask_ratio: Fraction of the tubes that is masked, in (0, 1).
        tubes: Whether the mask is the same at all times; False draws it for each time.
        decoder_dim: Width of the decoder, a multiple of 4, in [4, inf).
        decoder_depth: Blocks of the decoder; 4 in the paper, in [1, inf).
        min_scale: Smallest area of a crop as a fraction of the frame, in (0, 1].
    """

    paper = "Tong et al., 2022"
    section = "video: masked"
    kind = "video"
    default_encoder = "vit-clip"
    small_encoder = "vit-clip"
    defaults = {"lr": 1e-3, "betas": (0.9, 0.95), "warmup": 0.1, "batch_size": 32}  # noqa: RUF012
    coupled = False

    def __init__(
        self,
        encoder: Encoder,
        *,
        mask_ratio: float = 0.9,
        tubes: bool = True,
        decoder_dim: int = 64,
        decoder_depth: int = 2,
        min_scale: float = 0.5,
    ) -> None:
        super().__init__(encoder)
        self.times, self.patches, self.masked = check_tubes(encoder, mask_ratio)
        self.tubes, self.min_scale = tubes, min_scale
        pixels = self.encoder.tubelet * self.encoder.patch**2 * encoder.spec.channels
        self.decoder = MaskDecoder(encoder.dim, self.encoder.grid, pixels, width=decoder_dim, depth=decoder_depth)

    def views(self, spec: ClipSpec) -> ClipViews:
        """Return random clips, without colour changes or flips."""
        crop = Crop(spec.size, scale=(self.min_scale, 1))
        return ClipViews(spec, {"clip": (crop, Cut(spec.frames, spec.step))}, noise=True)

    def loss(self, batch: Batch) -> Loss:
        """Return the error of the masked cubes."""
        predicted, target, _, _ = self._predict(batch)
        value = (predicted - target).square().mean()
        variance = target.var()
        return Loss(value, {"explained": 1 - value.detach() / variance}, 1.0)

    def _predict(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return predicted and true pixels of masked cubes (B, M, P), and the numbers of visible and masked ones."""
        key, clip = batch["noise"], batch["clip"]
        if self.tubes:
            order = noise.shuffles(key, self.patches)
            masked, visible = (
                everywhere(part, self.times, self.patches) for part in order.tensor_split([self.masked], 1)
            )
        else:
            order = noise.shuffles(key, self.times * self.patches)
            masked, visible = order.tensor_split([self.times * self.masked], 1)
        predicted = self.decoder(self.encoder.tokens(clip, visible), visible, masked)
        target = self._normalized(clip)[0].flatten(2)
        return predicted, take(target, masked), visible, masked

    def _normalized(self, clip: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        cells = cubes(clip, self.encoder.tubelet, self.encoder.patch)
        mean, std = cells.mean(2, keepdim=True), (cells.var(2, keepdim=True) + 1e-6).sqrt()
        return (cells - mean) / std, mean, std

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the visible tubes; with `guess` the reconstruction, at each cube's true mean and std; the clip."""
        clip, encoder = batch["clip"], self.encoder
        predicted, _, visible, masked = self._predict(batch)
        cells, mean, std = self._normalized(clip)
        seen = mask_of(visible, cells.shape[1])[..., None, None]
        shape = encoder.grid, encoder.tubelet, encoder.patch
        columns = [
            (
                uncubes((cells * std + mean) * seen, *shape),
                f"visible: {self.patches - self.masked} of {self.patches} tubes",
            )
        ]
        if guess:
            filled = cells.flatten(2).scatter(1, masked[..., None].expand(-1, -1, predicted.shape[2]), predicted)
            columns += [(uncubes(filled.view_as(cells) * std + mean, *shape), "reconstruction")]
        columns += [(clip, "clip")]
        return [[Panel(clips[row], caption) for clips, caption in columns] for row in range(len(clip))]
