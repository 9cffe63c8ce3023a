"""Moments and transitions of episodes as samples of their own, which tasks learn from."""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from selfsup.data.spans import Spans
from selfsup.data.trajectory.episodes import Episodes
from selfsup.errors import UserError


class Instants(Spans):
    """Observations, or pairs of them, of episodes: sample i is `source` `owners[i]` from `starts[i]` to `stops[i]`.

    `group_size`: how many that follow one another in a batch are of one episode; 1 for any. `groups` (N,) are then the
    episodes, by which the loader makes batches.
    """

    source: Episodes

    def __init__(
        self,
        source: Episodes,
        owners: NDArray[np.int64],
        starts: NDArray[np.int64],
        length: int = 1,
        group_size: int = 1,
    ) -> None:
        super().__init__(source, owners, starts, starts + length)
        self.group_size = group_size

    @property
    def lengths(self) -> Any:
        """None: all have the same length, so that batches need not go by it."""
        return None

    @property
    def groups(self) -> NDArray[np.int64] | None:
        """The episode of each, where batches are to hold several of one; else None."""
        return self.owners if self.group_size > 1 else None

    def conform(self, spec: Any) -> Self:
        """Return the same, of the episodes as a spec has them. Raises `UserError` for another spec."""
        same = copy.copy(self)
        same.source = self.source.conform(spec)
        return same


def observations(source: Episodes, group_size: int = 1) -> Instants:
    """Return every observation as a sample; with `group_size`, so many of one episode are together in a batch.

    Of each episode then a multiple of `group_size` is used: those that are left over are left out, evenly; episodes
    with fewer than that are not used. Both are noted.

    Raises `UserError` where no episode has so many.
    """
    counts = source.extents
    if group_size > 1:
        counts = counts // group_size * group_size
        unused = int((counts == 0).sum())
        if unused == len(source):
            raise UserError(
                f"no episode of {source.name} has {group_size} observations, of which a batch takes so many together"
            )
        if unused:
            source.note(f"{unused:,} of {len(source):,} episodes have fewer than {group_size} observations: not used")
    owners = np.repeat(np.arange(len(source)), counts)
    place = np.arange(len(owners)) - np.repeat(counts.cumsum() - counts, counts)
    starts = (place + 0.5) * np.repeat(source.extents / np.maximum(counts, 1), counts)
    return Instants(source, owners, starts.astype(np.int64), 1, group_size)


def transitions(source: Episodes, actions: bool = False, rewards: bool = False) -> Instants:
    """Return every step from an observation to the next one as a sample, whose start is the first of the two.

    With `actions` or `rewards` those steps alone of which these are known; how many are left out is noted, and rewards
    that are 0 everywhere are too.

    Raises `UserError` where there is none.
    """
    extents = source.extents
    if not (extents > 1).any():
        raise UserError(f"no episode of {source.name} has two observations: there is nothing between them to learn")
    if actions and source.action[0] == "none":
        raise UserError(f"{source.name} has no actions, which this task learns from; tcn and stdim need none")
    owners = np.repeat(np.arange(len(source)), extents)
    starts = np.arange(len(owners)) - np.repeat(extents.cumsum() - extents, extents)
    found = starts < np.repeat(extents, extents) - 1
    if short := int((extents < 2).sum()):
        source.note(f"{short:,} of {len(source):,} episodes have a single observation: no step to learn from")
    if actions or rewards:
        steps, before = source.all_steps(), int(found.sum())
        if actions:
            discrete = source.action[0] == "discrete"
            found &= (steps.action >= 0) if discrete else np.isfinite(steps.action).all(1)
        if rewards:
            found &= np.isfinite(steps.reward)
        what = " or ".join(name for name, asked in (("action", actions), ("reward", rewards)) if asked)
        if not found.any():
            raise UserError(f"no step of {source.name} has a known {what}, which this task learns from")
        if lost := before - int(found.sum()):
            source.note(f"{lost:,} of {before:,} steps have no known {what}: left out")
        if rewards and not steps.reward[found].any():
            source.note("every reward is 0: what is learned from rewards here says nothing")
    return Instants(source, owners[found], starts[found], 2, 1)
