"""What the tasks share that compare what several cameras see at one moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from selfsup.base.distributed import gather
from selfsup.data.trajectory import Episodes
from selfsup.losses import full, npairs, product, semi_hard, unit
from selfsup.source import Source
from selfsup.task import Batch, Loss, Panel, Task

Objective = Literal["npairs", "triplet"]


def same_moment(
    z: Tensor, episode: Tensor, objective: Objective, margin: float, regularizer: float, same_episode: bool
) -> Loss:
    """Return how badly each of K cameras' embeddings z (B, K, d) finds another camera's of the same moment.

    Every ordered pair of cameras counts alike. Candidates are the moments of the batch, with `same_episode` those of
    the same one alone, where there are others.
    """
    z, episode = gather(z), gather(episode)
    own = torch.eye(len(z), dtype=torch.bool, device=z.device)
    among = episode[:, None] == episode if same_episode else torch.ones_like(own)
    z = unit(z) if objective == "triplet" else full(z)
    values, found = [], []
    for a, b in permutations(range(z.shape[1]), 2):
        if objective == "npairs":
            values.append(npairs(z[:, a], z[:, b], regularizer, among=among))
        else:
            values.append(semi_hard(z[:, a], z[:, b], own, among & ~own, margin))
        with torch.no_grad():
            near = -torch.cdist(z[:, a], z[:, b]) if objective == "triplet" else product(z[:, a], z[:, b].T)
            found.append((near.masked_fill(~among, -torch.inf).argmax(1) == own.long().argmax(1)).float().mean())
    chance = margin if objective == "triplet" else float(among.sum(1).float().log().mean())
    return Loss(torch.stack(values).mean(), {"retrieval": torch.stack(found).mean()}, chance)


def group_of(source: Source, given: Mapping[str, Any], task: type[Task]) -> dict[str, Any]:
    """Return `group_size` where it was not given, and half of the episodes have fewer observations than its default.

    It is then a power of 2, as batches are multiples of it.
    """
    assert isinstance(source, Episodes)
    usual, most = task.hyperparameters()["group_size"].default, max(1, int(np.median(source.extents)))
    return {"group_size": 1 << (most.bit_length() - 1)} if "group_size" not in given and most < usual else {}


def moment_panels(batch: Batch, cameras: Sequence[str], z: Tensor | None) -> list[list[Panel]]:
    """Return what each camera sees at a moment; with z (B, K, d) also the second camera's view nearest to the first."""
    views, times = batch["views"], batch["time"].tolist()
    rows = [
        [Panel(x, f"{name}, {time:.2f} s") for x, name in zip(seen, cameras, strict=False)]
        for seen, time in zip(views, times, strict=True)
    ]
    if z is not None:
        apart = torch.cdist(z[:, 0], z[:, 1])
        apart = apart.masked_fill(batch["episode"][:, None] != batch["episode"], torch.inf)
        for row, k in zip(rows, apart.argmin(1).tolist(), strict=True):
            row.append(Panel(views[k, 1], f"nearest of these: {times[k]:.2f} s"))
    return rows
