"""A random part of the data: features, small images, names and labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from selfsup.base.progress import counting
from selfsup.reports.media import thinned, to_image, to_words
from selfsup.source import Source
from selfsup.spec import Clip, Media
from selfsup.views import plain_views

MOST = 2000  # samples: more make the map unreadable and the file large
SIDE = 96  # pixels of a kept image
CLIP_SIDE, CLIP_FRAMES = 64, 8  # of a kept clip: 2,000 of them are 200 MB


@dataclass(frozen=True)
class Items:
    """n samples: features (n, d) float32, images or clips, words, paths, label ids (n,), -1 for none, class names.

    `words`: the text of a sample, '' for an image; `total`: the number of samples in the data; `numbers` (n,) int64:
    which of them these are, where that is known.
    """

    features: NDArray[np.float32]
    images: list[Image.Image | Clip | None]
    words: list[str]
    paths: list[str]
    ids: NDArray[np.int64]
    classes: tuple[str, ...]
    total: int
    numbers: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, chosen: NDArray[np.bool_]) -> Items:
        """Return some of the samples."""
        numbers = np.flatnonzero(chosen).tolist()
        images, words = [self.images[i] for i in numbers], [self.words[i] for i in numbers]
        paths = [self.paths[i] for i in numbers]
        return Items(self.features[chosen], images, words, paths, self.ids[chosen], self.classes, self.total)

    def label(self, number: int) -> str:
        """Return the name of a sample's class, '' where it has none."""
        return self.classes[self.ids[number]] if self.ids[number] >= 0 else ""

    def name(self, number: int) -> str:
        """Return the name of a sample: its path, and its label if it has one."""
        return " · ".join(filter(None, (self.paths[number], self.label(number))))


@torch.no_grad()
def gather(encoder: nn.Module, source: Source, spec: Any, device: torch.device, seed: int, quiet: bool) -> Items:
    """Return at most `MOST` samples, drawn by `seed`; those that cannot be read are left out.

    Each sample is read once, for its features and its image. Raises `Broken` if nothing can be read.
    """
    chosen = np.arange(len(source))
    if len(source) > MOST:
        chosen = np.sort(np.random.default_rng(seed).choice(len(source), MOST, replace=False))
    views = plain_views(spec)
    encoder = encoder.to(device).eval()
    features, images, words, kept = [], list[Image.Image | Clip | None](), list[str](), []
    with counting("reading samples for the report", len(chosen), quiet) as advance:
        for start in range(0, len(chosen), 128):
            wanted = chosen[start : start + 128]
            fetched = views.fetch(source, wanted, 0, 0)
            x = views.finish({key: value.to(device) for key, value in fetched.batch.items()})["x"]
            read = fetched.batch["index"].numpy() == wanted  # a broken sample was replaced by another one
            features.append(encoder(x).float().cpu().numpy()[read])
            kept.append(wanted[read])
            for sample in x[torch.from_numpy(read).to(device)]:
                media = spec.draw(sample)
                images.append(_small(media))
                words.append(to_words(media))
            advance(len(wanted))
    numbers = np.concatenate(kept)
    labels = source.labels
    return Items(
        np.concatenate(features),
        images,
        words,
        [source.path(int(number)) for number in numbers],
        labels.ids[numbers] if labels else np.full(len(numbers), -1),
        labels.classes if labels else (),
        len(source),
        numbers,
    )


def _small(media: Media) -> Image.Image | Clip | None:
    if isinstance(media, Clip):
        return thinned(media, CLIP_SIDE, CLIP_FRAMES)
    image = to_image(media)
    if image is not None:
        image.thumbnail((SIDE, SIDE))
    return image
