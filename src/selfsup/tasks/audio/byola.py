"""BYOL for audio (Niizumi et al., 2021): BYOL on two changed versions of one segment of sound."""

from __future__ import annotations

from collections.abc import Sequence

from selfsup.spec import WaveSpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.tasks.image.byol import BYOL
from selfsup.views.audio import AudioViews, Window
from selfsup.views.audio.views import CANVAS


class BYOLA(Task):
    """Predict the target network's projection of the same segment, changed otherwise (Niizumi et al., 2021). No chance.

    Both views are the *same* window: another recording is mixed into the background, and a part of the spectrogram is
    stretched in time and frequency. The representation keeps what these changes leave: the foreground.

    The loss lies between 0 and 8 (`byol`). Watch the labels of the content and of the speaker: a representation that is
    invariant to the wrong thing gains on one and loses on the other.

    Batch: `x` (B, 2, 1, M, T) float.
    Published: AudioSet, linear: NSynth 74.1%, US8K 79.1%, VoxCeleb1 40.1%, VoxForge 90.2%, Speech Commands v2 92.2%.
    Deviations: recordings are mixed as energies, before the normalization, with one that is drawn from all data, not
    from a queue of 2,048; no normalization by the batch afterwards; bilinear, not bicubic; smaller heads.

    Args:
        mix: Largest fraction of the energy that comes from another recording, in [0, 1).
        channel: Decibels by which bands are changed, smoothly, and half of it the loudness: not in the paper. Against
            what microphone, voice and loudness share, in [0, inf).
        min_scale: Smallest height and length of the part that is stretched, as a fraction, in (0, 1.5).
        momentum: Momentum of the target network; by default from the number of steps, see `byol`; 0.99 in the paper,
            in [0, 1].
        hidden_dim: Width of the hidden layers of projector and predictor; 4096 in the paper, in [1, inf).
        out_dim: Dimension of the projection; 256 in the paper, in [1, inf).
    """

    paper = "Niizumi et al., 2021"
    section = "audio"
    kind = "audio"
    default_encoder = small_encoder = "audio-cnn"
    counters = {"floor": {"mix": 0.4}, "length": {"mix": 0.4}}  # noqa: RUF012

    def __init__(
        self,
        encoder: Encoder,
        *,
        mix: float = 0.4,
        channel: float = 0.0,
        min_scale: float = 0.6,
        momentum: float | None = None,
        hidden_dim: int = 512,
        out_dim: int = 128,
    ) -> None:
        super().__init__(encoder)
        self.mix, self.channel, self.min_scale = mix, channel, min_scale
        self.byol = BYOL(encoder, momentum=momentum, hidden_dim=hidden_dim, out_dim=out_dim)

    def views(self, spec: WaveSpec) -> AudioViews:
        """Return two versions of a segment (section III)."""
        return AudioViews(
            spec,
            {
                "x": Window(
                    2, "same", gain=self.channel / 2, channel=self.channel, mix=self.mix, crop=(self.min_scale, CANVAS)
                )
            },
        )

    def loss(self, batch: Batch) -> Loss:
        """Return BYOL's loss."""
        return self.byol.loss(batch)

    def after_step(self) -> None:
        """Update the target network."""
        self.byol.progress, self.byol.steps = self.progress, self.steps
        self.byol.after_step()

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return the two views of each segment."""
        return self.byol.panels(batch, guess)
