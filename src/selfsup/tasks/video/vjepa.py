"""V-JEPA (Bardes et al., 2024): predict features of masked tubes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.encoders.video.vit_clip import cubes, uncubes
from selfsup.losses import full
from selfsup.nn import noise
from selfsup.nn.ema import Momentum, ema_update, frozen_copy
from selfsup.nn.image.mask_decoder import MaskDecoder, similarity, spread
from selfsup.nn.image.masks import mask_of, rectangles, take
from selfsup.spec import ClipSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.tasks.video.tubes import check_tubes, everywhere
from selfsup.views.image import Crop
from selfsup.views.video import ClipViews, Cut

SHORT, LONG = (8, 0.15), (2, 0.7)  # blocks of a mask, and the area of each (section 3.2)


class VJEPA(Task):
    """Predict the features of masked tubes, as an EMA encoder sees them in the whole clip (Bardes et al., 2024).

    Each clip has one of two masks: the union of 8 blocks of 15% of the frame, or of 2 blocks of 70%, through all times
    (section 3.2). A predictor gets the tokens of the visible tubes and the positions of the masked ones; the loss is
    the L1 distance to the features of the target encoder after LayerNorm. The representation is the target encoder's.

    Counter-measures: the targets are an EMA and pass no gradient; `target_spread`, 0 for a collapse, is logged.

    Batch: `clip` (B, T, C, H, W) float; `noise` (B,) int64, from which the masks are drawn.
    Published: Kinetics-400, ViT-L frozen, attentive probe 80.8%; Something-Something V2 69.5%.

    Deviations: the same number of tubes is masked in all clips of a batch, `mask_ratio`, the union of blocks first; the
    paper truncates to the smallest of the batch. One predictor pass; the EMA's momentum is a function of the number of
    steps.

    Args:
        mask_ratio: Fraction of the tubes that is masked, in (0, 1).
        momentum: Momentum of the target encoder at the start; it rises linearly to 1. By default from the number of
            steps, in [0, 1].
        predictor_dim: Width of the predictor, a multiple of 4, in [4, inf).
        predictor_depth: Blocks of the predictor; 12 in the paper, in [1, inf).
        min_scale: Smallest area of a crop as a fraction of the frame, in (0, 1].
    """

    paper = "Bardes et al., 2024"
    section = "video: masked"
    kind = "video"
    default_encoder = "vit-clip"
    small_encoder = "vit-clip"
    defaults = {"lr": 1e-3, "warmup": 0.1, "batch_size": 32}  # noqa: RUF012
    coupled = False

    def __init__(
        self,
        encoder: Encoder,
        *,
        mask_ratio: float = 0.75,
        momentum: float | None = None,
        predictor_dim: int = 64,
        predictor_depth: int = 3,
        min_scale: float = 0.5,
    ) -> None:
        super().__init__(encoder)
        self.times, self.patches, self.masked = check_tubes(encoder, mask_ratio)
        self.momentum, self.min_scale = Momentum(momentum, linear=True), min_scale
        self.predictor = MaskDecoder(
            encoder.dim, self.encoder.grid, encoder.dim, width=predictor_dim, depth=predictor_depth
        )
        self.target_encoder = frozen_copy(self.encoder)

    def views(self, spec: ClipSpec) -> ClipViews:
        """Return random clips, without colour changes or flips."""
        crop = Crop(spec.size, scale=(self.min_scale, 1))
        return ClipViews(spec, {"clip": (crop, Cut(spec.frames, spec.step))}, noise=True)

    def loss(self, batch: Batch) -> Loss:
        """Return the error of the predicted features."""
        predicted, target, _, _ = self._predict(batch)
        return Loss(F.l1_loss(predicted, target), {"target_spread": spread(target), **self.momentum.metrics()})

    def _predict(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return predicted and target features (B, M, dim), and the numbers of visible and masked cubes."""
        clip, key = batch["clip"], batch["noise"]
        masked, visible = (everywhere(part, self.times, self.patches) for part in self._choose(key))
        with torch.no_grad():
            states = F.layer_norm(full(self.target_encoder.tokens(clip)), (self.encoder.dim,))
            target = take(states, masked)
        return self.predictor(self.encoder.tokens(clip, visible), visible, masked), target, visible, masked

    def _choose(self, key: Tensor) -> tuple[Tensor, Tensor]:
        """Return the masked patches of each clip (B, masked), in blocks, and the visible ones."""
        side = self.encoder.grid[1]
        found = []
        for stream, (number, area) in enumerate((SHORT, LONG)):
            ratio = 0.75 * 2 ** noise.uniform(key, number, stream=3 + stream)  # height / width from 0.75 to 1.5
            height = ((area * ratio).sqrt() * side).round().long().clamp(1, side)
            width = ((area / ratio).sqrt() * side).round().long().clamp(1, side)
            found.append(rectangles(key, height, width, side, stream=1 + stream).any(1))
        short = noise.uniform(key, 1, stream=5) < 0.5
        covered = torch.where(short, found[0], found[1])
        order = (~covered + noise.uniform(key, self.patches, stream=6)).argsort(1)
        masked, visible = order.tensor_split([self.masked], 1)
        return masked, visible

    def after_step(self) -> None:
        """Update the target encoder."""
        ema_update(self.target_encoder, self.encoder, self.momentum.advance(self.progress, self.steps))

    def representation(self) -> Encoder:
        """Return the target encoder, which the paper evaluates."""
        found: Encoder = self.target_encoder
        return found

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return what is visible of each clip, with `guess` the similarity of the predicted features, and the clip."""
        clip, encoder = batch["clip"], self.encoder
        predicted, target, visible, _ = self._predict(batch)
        cells = cubes(clip, encoder.tubelet, encoder.patch)
        seen = mask_of(visible, cells.shape[1])[..., None, None]
        shown = uncubes(cells * seen, encoder.grid, encoder.tubelet, encoder.patch)
        told = f"context: {self.patches - self.masked} of {self.patches} tubes"
        captions = [f"{told}; cosine {value:.2f}" if guess else told for value in similarity(predicted, target)]
        return [[Panel(shown[row], captions[row]), Panel(clip[row], "clip")] for row in range(len(clip))]
