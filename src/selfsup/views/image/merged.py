"""The views of several tasks on images in one batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from numpy.typing import NDArray

from selfsup.source import Source
from selfsup.task import Batch, Fetched
from selfsup.views.image.crop import Crop
from selfsup.views.image.views import ImageViews


@dataclass(frozen=True)
class MergedViews:
    """Groups of `made`, each once; a batch has them under `keys`, which map the keys of all parts to groups."""

    made: ImageViews
    keys: Mapping[str, str]

    @classmethod
    def of(cls, parts: Mapping[str, ImageViews]) -> MergedViews:
        """Return the views of all parts under PART.KEY; a group that two parts have in common is made once."""
        groups: dict[str, Crop] = {}
        keys: dict[str, str] = {}
        for name, views in parts.items():
            for key, crop in views.groups.items():
                keys[f"{name}.{key}"] = next((made for made, known in groups.items() if known == crop), f"{name}.{key}")
                groups[keys[f"{name}.{key}"]] = crop
        first = next(iter(parts.values()))
        return cls(replace(first, groups=groups, noise=any(views.noise for views in parts.values())), keys)

    def for_device(self, device: torch.device) -> MergedViews:
        """Return the same as it suits a device."""
        return replace(self, made=self.made.for_device(device))

    def fetch(self, source: Source, indices: NDArray[Any], seed: int, epoch: int) -> Fetched:
        """Return each group once."""
        return self.made.fetch(source, indices, seed, epoch)

    def finish(self, batch: Batch) -> Batch:
        """Return it under the keys of all parts."""
        done = self.made.finish(batch)
        common = {key: value for key, value in done.items() if key not in self.made.groups}
        return common | {key: done[made] for key, made in self.keys.items()}


def part_of(batch: Batch, name: str) -> Batch:
    """Return the batch of one part: its own keys, and the common ones."""
    common = {key: value for key, value in batch.items() if "." not in key}
    return common | {key.removeprefix(f"{name}."): x for key, x in batch.items() if key.startswith(f"{name}.")}
