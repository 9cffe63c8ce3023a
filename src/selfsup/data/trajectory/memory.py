"""Episodes in memory, and the one observation that a query of `search` is."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from selfsup.data.image.decode import to_channels
from selfsup.data.image.query import open_query as open_image
from selfsup.data.trajectory.episodes import LARGEST, Episodes, Steps
from selfsup.data.trajectory.writing import About, Episode, checked_frames
from selfsup.errors import UserError
from selfsup.source import Broken, Labels
from selfsup.spec import ImageSpec


class InMemory(Episodes):
    """Episodes that are arrays. Raises `UserError` for one that does not fit `about`, and for none."""

    def __init__(self, about: About, episodes: Sequence[Episode], name: str = "episodes") -> None:
        self.name, self.cameras, self.action = name, about.cameras, about.action
        self.states, self.fps = about.states, about.fps
        if not episodes:
            raise UserError(f"{name} holds no episodes")
        self._seen, self._steps, self._numbers = list[dict[str, NDArray[np.uint8]]](), [], np.arange(len(episodes))
        for number, episode in enumerate(episodes):
            try:
                self._seen.append(dict(zip(about.cameras, checked_frames(episode, about), strict=True)))
                self._steps.append(episode.steps(about))
            except Broken as error:
                raise UserError(f"episode {number} of {name} has {error}") from None
        first = self._seen[0][self.cameras[0]]
        self.extents, self.shape = np.array([len(steps.reward) for steps in self._steps]), first.shape[1:3]
        if any(episode.label is not None for episode in episodes):
            self.labels = Labels.of([episode.label for episode in episodes])

    def frames(self, index: int, numbers: NDArray[np.int64], camera: str) -> NDArray[np.uint8]:
        """Return frames (T, H, W, 3) of a camera by their numbers."""
        return self._seen[self._numbers[index]][camera][numbers]

    def steps(self, index: int) -> Steps:
        """Return the rows of an episode."""
        return self._steps[self._numbers[index]]

    def path(self, index: int) -> str:
        """Return the number of the episode."""
        return str(self._numbers[index])

    def some(self, indices: NDArray[np.int64]) -> Self:
        """Return a copy with some of the episodes."""
        same = copy.copy(self)
        same._numbers = self._numbers[indices]
        return same

    def fingerprint(self) -> str:
        """Return a hash of the first frames of all, and of their rows."""
        parts = [self._seen[number][self.cameras[0]][0].tobytes() for number in self._numbers.tolist()]
        return self.digest(*parts, *(column.tobytes() for number in self._numbers for column in self._steps[number]))


def open_query(query: object) -> InMemory:
    """Return an image, an observation, as an episode of its own; `UserError` for none."""
    if not isinstance(query, str | os.PathLike | np.ndarray):
        raise UserError(f"the query must be an image of an observation, not {type(query).__name__}")
    try:
        frame = to_channels(open_image(query).conform(ImageSpec.of(LARGEST, 3)).read(0), 3)
    except Broken as error:
        raise UserError(f"{query} cannot be read: {error}") from None
    return InMemory(About(("query",)), [Episode({"query": frame[None]})], "query")
