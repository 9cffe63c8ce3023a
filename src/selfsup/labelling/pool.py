"""The samples to label: those of a source that can be read, their features, and the labels that are known."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from selfsup.errors import UserError
from selfsup.evaluation.features import extract
from selfsup.evaluation.propagate import connect, whiten
from selfsup.evaluation.rows import as_matrix
from selfsup.labelling.assign import UNSURE_BELOW, Assigned, assign
from selfsup.labelling.suggest import STRATEGIES, Suggestion, vectors_of
from selfsup.run import Run
from selfsup.source import Source

TESTED, RIGHT = 10, 0.9  # held-out labels, and the fraction predicted, from which on `auto` asks for uncertain samples


class Next(NamedTuple):
    """What to label next, by which strategy, and what there is to say about it."""

    suggestions: list[Suggestion]
    strategy: str
    notes: tuple[str, ...]


class Pool:
    """A source and the features (n, d) of its samples `numbers` (n,) that can be read.

    Rows are counted among the readable samples, numbers among all.
    """

    def __init__(self, source: Source, numbers: NDArray[np.int64], features: NDArray[np.float32]) -> None:
        self.source, self.numbers, self.features = source, numbers, as_matrix(features).numpy()
        self.row_of = np.full(len(source), -1)
        self.row_of[numbers] = np.arange(len(numbers))

    @classmethod
    def of(cls, run: Run, source: Source, device: torch.device | str = "cpu", quiet: bool = True) -> Pool:
        """Return the pool with the features of a run's encoder."""
        return cls(source, *extract(run.load(), source, run.spec, device, quiet))

    @cached_property
    def whitened(self) -> torch.Tensor:
        """What is compared: once for the graph and for the clusters."""
        return whiten(torch.from_numpy(self.features))

    @cached_property
    def graph(self) -> Any:
        """The nearest-neighbour graph of all readable samples."""
        if len(self.numbers) < 3:
            raise UserError(f"{self.source.name} has too few readable samples to spread labels: {len(self.numbers)}")
        return connect(self.whitened)

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        """What is clustered."""
        return vectors_of(self.whitened)

    def known(self) -> dict[int, int]:
        """Return the classes of the source's labelled samples by their numbers."""
        labels = self.source.labels
        if labels is None:
            return {}
        return {int(number): int(labels.ids[number]) for number in np.flatnonzero(labels.ids >= 0)}

    def unread(self, known: Mapping[int, int]) -> set[int]:
        """Return the classes none of whose labelled samples can be read."""
        return set(known.values()) - {known[int(number)] for number in self.numbers[self._rows(known)]}

    def assign(self, known: Mapping[int, int], num_classes: int, unsure_below: float = UNSURE_BELOW) -> Assigned:
        """Spread the known classes, by number, over all rows; labels of unreadable samples say nothing."""
        rows = self._rows(known)
        if not len(rows):
            raise UserError(f"none of the labelled samples of {self.source.name} can be read")
        y = np.array([known[int(number)] for number in self.numbers[rows]], np.int64)
        if len(set(y.tolist())) == 1 and self.unread(known):
            raise UserError(f"the labelled samples of {self.source.name} that can be read are all of one class")
        return assign(self.graph, rows, y, num_classes, unsure_below)

    def suggest(
        self,
        known: Mapping[int, int],
        n: int,
        strategy: str,
        seed: int = 0,
        probabilities: NDArray[np.float32] | None = None,
    ) -> list[Suggestion]:
        """Return suggestions, whose `row` is a number of the source; fewer where fewer have no label."""
        rows = self._rows(known)
        wanted = min(n, len(self.numbers) - len(rows))
        if wanted < 1:
            return []
        found = STRATEGIES[strategy](self.vectors, rows, wanted, seed, probabilities)
        return [Suggestion(int(self.numbers[item.row]), item.stands_for) for item in found]

    def next(
        self, known: Mapping[int, int], n: int, strategy: str = "auto", seed: int = 0, assigned: Assigned | None = None
    ) -> tuple[Next, Assigned | None]:
        """Return what to label next, and the labels of all that it is based on, None where there are too few.

        `auto` is typical until at least 10 held-out labels were predicted, 90% of them rightly, and then uncertain:
        where the graph is often wrong, what it is uncertain about says little.
        """
        several, notes = len(set(known.values()) - self.unread(known)) >= 2, list[str]()
        if strategy == "uncertain" and not several:
            notes.append(
                "Labels of two classes are needed to tell what is uncertain, so typical samples are suggested."
            )
            strategy = "typical"
        if strategy in ("auto", "uncertain") and several and assigned is None:
            assigned = self.assign(known, max(known.values()) + 1)
        if strategy == "auto":
            check = None if assigned is None else assigned.calibration
            trusted = check is not None and check.tested >= TESTED and check.right >= RIGHT * check.tested
            strategy = "uncertain" if trusted else "typical"
        found = self.suggest(known, n, strategy, seed, None if assigned is None else assigned.probabilities)
        return Next(found, strategy, tuple(notes)), assigned

    def _rows(self, known: Mapping[int, int]) -> NDArray[np.int64]:
        rows = self.row_of[np.fromiter(known, np.int64, len(known))]
        return np.sort(rows[rows >= 0])
