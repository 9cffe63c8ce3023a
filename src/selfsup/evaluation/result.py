"""What an evaluation returns: numbers that print as a table."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from selfsup.printing import Printable


@dataclass(frozen=True)
class Score:
    """The accuracy of one representation read by one protocol with so many labels per class (None: all of them).

    `mean` over the draws in `values`, `half` of its 95% interval (nan for a single value), all in [0, 1].
    """

    representation: str
    protocol: str
    shots: int | None
    mean: float
    half: float
    values: tuple[float, ...]


@dataclass(frozen=True)
class Evaluation(Printable):
    """Few-label accuracies beside their baselines; `about` names data, split, seeds, encoder and protocol."""

    about: dict[str, Any]
    scores: tuple[Score, ...]

    def score(self, representation: str, protocol: str, shots: int | None) -> Score:
        """Return one entry. Raises `KeyError` where there is none."""
        for score in self.scores:
            if (score.representation, score.protocol, score.shots) == (representation, protocol, shots):
                return score
        raise KeyError((representation, protocol, shots))

    def as_json(self) -> dict[str, Any]:
        """Return plain numbers; an interval that one value does not have is null."""
        scores = [asdict(score) | {"half": None if math.isnan(score.half) else score.half} for score in self.scores]
        return {"about": self.about, "scores": scores}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `as_json` to a file."""
        Path(path).write_text(json.dumps(self.as_json(), indent=2))

    def __rich__(self) -> Table:
        shots = list(dict.fromkeys(score.shots for score in self.scores))
        about = self.about
        table = Table(
            title=f"accuracy on {about['test']['samples']:,} test samples by labels per class",
            caption=f"mean ± 95% interval over {about['draws']} draws of the labels; classes: {about['classes']}",
        )
        table.add_column("representation")
        table.add_column("read by")
        for count in shots:
            table.add_column("all" if count is None else str(count), justify="right")
        cells: dict[tuple[str, str], dict[int | None, str]] = {}
        for score in self.scores:
            text = f"{score.mean:.3f}" if math.isnan(score.half) else f"{score.mean:.3f} ±{score.half:.3f}"
            cells.setdefault((score.representation, score.protocol), {})[score.shots] = text
        last = ""
        for (representation, protocol), texts in cells.items():
            if last and representation != last:
                table.add_section()
            shown, last = "" if representation == last else representation, representation
            table.add_row(shown, protocol, *(texts.get(count, "") for count in shots))
        return table
