"""Spans of steps that are hidden from a transformer over sound, of wav2vec 2.0 and its successors."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selfsup.errors import UserError
from selfsup.losses import full
from selfsup.nn import noise
from selfsup.nn.image.masks import lowest, mask_of, places_of, take


class SpanMask(nn.Module):
    """Spans of latents, the same number of steps in each recording, replaced by a learned vector."""

    def __init__(self, name: str, encoder: Any, mask_ratio: float, span: int) -> None:
        super().__init__()
        if not hasattr(encoder, "contexts"):
            raise UserError(f"{name} masks what a transformer over samples sees: give --encoder wav2vec2-small")
        self.steps = (encoder.spec.length - encoder.reach) // encoder.stride + 1
        self.count, self.span = round(mask_ratio * self.steps), min(span, self.steps)
        if not 2 <= self.count < self.steps:
            raise UserError(
                f"a window of {encoder.spec.seconds:g} s has {self.steps} steps, of which --mask-ratio {mask_ratio} "
                f"masks {self.count}: give more --seconds or another ratio"
            )
        self.token = nn.Parameter(torch.empty(encoder.dim).uniform_())

    def draw(self, key: Tensor) -> Tensor:
        """Return the masked steps (B, count) int64 of recordings with these keys (B,), ascending."""
        return places_of(spans(key, self.steps, self.count, self.span), self.count)

    def contexts(self, encoder: Any, latents: Tensor, places: Tensor) -> Tensor:
        """Return what the encoder's transformer makes of the masked steps: (B, count, dim)."""
        return take(full(encoder.contexts(latents, mask_of(places, self.steps), self.token)), places)


def silenced(x: Tensor, places: Tensor, encoder: Any) -> Tensor:
    """Return windows (B, N) that are 0, the mean, at the steps that a mask covers: to be heard, never learned from."""
    steps = mask_of(places, int(places.amax()) + 1).repeat_interleave(encoder.stride, 1)[:, : x.shape[1]]
    return torch.where(F.pad(steps, (0, x.shape[1] - steps.shape[1])), 0.0, x)


def spans(key: Tensor, steps: int, count: int, span: int) -> Tensor:
    """Return (B, steps) bool, `count` of them true: spans of `span` steps at random places; the last may be shorter.

    wav2vec 2.0 draws a number of spans, of which some overlap, and then leaves out steps until all recordings of the
    batch have equally many masked. Here the number does not depend on the batch.
    """
    number = 8 + 4 * -(-count // span)  # they overlap: fewer would not always cover enough
    start = noise.integers(key, steps - span + 1, number)[..., None]
    place = torch.arange(steps, device=key.device)
    covered = (place >= start) & (place < start + span)
    order = torch.arange(number, device=key.device)[:, None]
    first = torch.where(covered, order, number).amin(1)
    return lowest(first * steps + place, count)


def penalty(latents: Tensor) -> Tensor:
    """Return 10 times the mean square of latents, which would grow for ever (wav2vec 2.0, the authors' code)."""
    return 10 * full(latents).square().mean()
