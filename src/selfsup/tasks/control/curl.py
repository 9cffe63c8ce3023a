"""CURL (Srinivas, Laskin & Abbeel, 2020): find the other crop of the same observation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.base.distributed import gather
from selfsup.data.trajectory import transitions
from selfsup.losses import full, product
from selfsup.nn.control.latent import Latent
from selfsup.nn.ema import ema_update, frozen_copy
from selfsup.nn.heads import accuracy
from selfsup.nn.image.pairs import view_panels
from selfsup.source import Source
from selfsup.spec import TrajectorySpec
from selfsup.task import Batch, Encoder, Loss, Panel, Task
from selfsup.views.image import Crop
from selfsup.views.trajectory import TransitionViews


class CURL(Task):
    """Find the other random crop of the same observation in the batch (Srinivas, Laskin & Abbeel, 2020, section 4).

    The query is the latent of one crop, the key that of another one by an EMA encoder; all frames of an observation
    have the same crop. Logits are q W kᵀ, W is learned and begins between 0 and 1. Cross-entropy over the batch, which
    subtracts the maximum of a row, as the authors do; chance is ln B.

    In `selfsup control curl ENV` the first crop is what the agent sees, so that it learns from crops too. These alone
    explain much of the published gain: see `--sees crops` there before you credit the contrastive loss.

    Batch: `obs`, `positive`, two crops, and `next_obs`, which only an agent looks at, (B, S·C, H, W) float; `action`,
    `reward`, `discount`, `episode` and `time` are not used.
    Published: DeepMind control, 100,000 steps of the environment: cartpole 582, reacher 538, cup 769, finger 767,
    cheetah 299, walker 403.

    Deviations: a crop is a shift over black, so that the whole frame, at the same scale, is what evaluation sees (there
    a crop of 84 of 100 pixels, and its middle); the next observation has the crop of the first; the EMA encoder moves
    in every step (there in every second one); the encoder of your choice.

    Args:
        latent_dim: Dimension of the latent, which is the representation, in [1, inf).
        momentum: Momentum of the EMA encoder; 1 - 0.05 in the paper, in [0, 1].
        shift: Largest shift of a crop as a fraction of the side; 8 of 84 pixels in the paper, in [0, 0.5].
    """

    paper = "Srinivas et al., 2020"
    section = "control: crops"
    kind = "trajectory"
    default_encoder = small_encoder = "nature-cnn"
    data_defaults = {"stack": 3}  # noqa: RUF012

    def __init__(self, encoder: Encoder, *, latent_dim: int = 50, momentum: float = 0.95, shift: float = 0.1) -> None:
        super().__init__(encoder)
        self.momentum, self.shift = momentum, shift
        self.latent = Latent(encoder, latent_dim)
        self.momentum_latent = frozen_copy(self.latent)
        self.bilinear = nn.Parameter(torch.rand(latent_dim, latent_dim))

    def samples(self, source: Any) -> Source:
        """Return the transitions of all episodes, whose first observations are learned from."""
        return transitions(source)

    def views(self, spec: TrajectorySpec) -> TransitionViews:
        """Return an observation in two crops."""
        return TransitionViews(spec, crop=Crop(spec.size, pad=round(self.shift * spec.size)), positive=True)

    def representation(self) -> Encoder:
        """Return the encoder up to the latent."""
        return self.latent

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy of the key of the same observation among those of the batch."""
        query = gather(full(self.latent(batch["obs"])))
        with torch.no_grad():
            key = gather(full(self.momentum_latent(batch["positive"])))
        logits = product(product(query, self.bilinear), key.T)
        right = torch.arange(len(logits), device=logits.device)
        metrics = {"accuracy": accuracy(logits, right), "std": query.detach().std(0, correction=0).mean()}
        return Loss(F.cross_entropy(logits, right), metrics, math.log(len(logits)))

    def after_step(self) -> None:
        """Update the EMA encoder."""
        ema_update(self.momentum_latent, self.latent, self.momentum)

    def panels(self, batch: Batch, guess: bool = False) -> Sequence[Sequence[Panel]]:
        """Return both crops; with `guess` which other crop is the nearest, by the cosine of their latents."""
        crops: Tensor = torch.stack([batch["obs"], batch["positive"]], 1)
        return view_panels(crops, embed=self.latent if guess else None)
