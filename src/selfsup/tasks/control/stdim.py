"""Spatiotemporal deep infomax (Anand et al., 2019): find what a place looked like a moment ago."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.base.distributed import gather
from selfsup.data.trajectory import transitions
from selfsup.errors import UserError
from selfsup.losses import product
from selfsup.nn.control.panels import transition_panels
from selfsup.source import Source
from selfsup.spec import TrajectorySpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.trajectory import TransitionViews


class STDIM(Task):
    """Find a place's features at t - 1 among those of other transitions at this place (Anand et al., 2019).

    Queries at time t are the representation (global-local), and the features of the same place (local-local), by a
    bilinear form each; InfoNCE over the batch, the mean over places, and the sum of both. Chance is 2 ln B.

    The features are a map in the middle of a convolutional encoder, or its last one: `convnet`, `nature-cnn` (the
    paper's, for images of 128 pixels and more) and timm's. t is at least 1: in the authors' code the first frame of an
    episode is paired with its last one.

    Batch: `obs`, at t - 1, and `next_obs`, at t, (B, S·C, H, W) float; `action` and `reward` are shown; `discount`,
    `episode` and `time` are not used.
    Published: 22 games of Atari, linear probes of RAM variables, mean F1 0.68 (untrained CNN 0.44, supervised 0.82);
    Pong 0.81, Boxing 0.58.
    Deviations: square images; the pairs of an epoch are all steps, each once.
    """

    paper = "Anand et al., 2019"
    section = "control: time"
    kind = "trajectory"
    default_encoder = small_encoder = "nature-cnn"
    defaults = {"batch_size": 64, "lr": 3e-4}  # noqa: RUF012

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder)
        if not hasattr(encoder, "with_maps"):
            raise UserError("stdim compares places, which need a convolutional encoder: give convnet or nature-cnn")
        training = self.encoder.training
        with torch.no_grad():
            width = self.encoder.eval().with_maps(encoder.spec.example(2))[1].shape[1]
        self.encoder.train(training)
        self.from_global, self.from_local = nn.Linear(encoder.dim, width), nn.Linear(width, width)

    def samples(self, source: Any) -> Source:
        """Return the transitions of all episodes."""
        return transitions(source)

    def views(self, spec: TrajectorySpec) -> TransitionViews:
        """Return two observations that follow each other."""
        return TransitionViews(spec)

    def logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the scores (P, B, B) at P places, global-local and local-local: rows are at t, columns at t - 1."""
        features, maps = self.encoder.with_maps(torch.cat([batch["obs"], batch["next_obs"]]))
        before, after = (gather(half).flatten(2).permute(2, 0, 1) for half in maps.chunk(2))  # (P, B, C)
        keys = before.transpose(1, 2)
        return product(self.from_global(gather(features.chunk(2)[1])), keys), product(self.from_local(after), keys)

    def loss(self, batch: Batch) -> Loss:
        """Return the sum of both losses."""
        scores = self.logits(batch)
        right = torch.arange(scores[0].shape[1], device=scores[0].device).expand(scores[0].shape[:2])
        first, second = (F.cross_entropy(score.flatten(0, 1), right.flatten()) for score in scores)
        names = ("global", "local")
        found = {name: (s.argmax(2) == right).float().mean() for name, s in zip(names, scores, strict=True)}
        return Loss(first + second, found, 2 * math.log(scores[0].shape[1]))

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return both observations; with `guess` at how many places the one before is found in the batch."""
        if not guess:
            return transition_panels(batch)
        right = torch.arange(len(batch["obs"]), device=batch["obs"].device)
        found = [(score.argmax(2) == right).float().mean(0).tolist() for score in self.logits(batch)]
        return transition_panels(
            batch, [f"found at {a:.0%} of the places from all, {b:.0%} from each" for a, b in zip(*found, strict=True)]
        )
