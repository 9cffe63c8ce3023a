"""Runs of one recipe that differ in their seed: what `pretrain --seeds` makes, and `evaluate` takes together."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfsup.base.hub import on_hub
from selfsup.base.paths import user_path
from selfsup.base.printing import Printable
from selfsup.errors import UserError
from selfsup.run import Run

PREFIX = "seed-"  # of the folders of runs, before the seed


@dataclass(frozen=True, repr=False)
class Runs(Printable):
    """Runs of the same task and encoder, each with another seed; `folder` holds them all, if `pretrain` made them.

    Raises `UserError` for none, for runs of different tasks, encoders or samples, and for two of one seed.
    """

    runs: tuple[Run, ...]
    folder: Path | None = None

    def __post_init__(self) -> None:
        kinds = {(run.task, run.encoder_name, run.spec.describe()) for run in self.runs}
        seeds = [run.recipe["plan"].get("seed") for run in self.runs]
        if len(kinds) != 1:
            told = " and ".join(sorted(f"{task} with {encoder} on {spec}" for task, encoder, spec in kinds))
            raise UserError(f"runs of several seeds are of one task, encoder and size, not {told or 'none at all'}")
        if len(set(seeds)) < len(seeds):
            raise UserError(f"runs of several seeds have each another one, not {', '.join(map(str, seeds))}")

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    def __getitem__(self, place: int) -> Run:
        return self.runs[place]

    def as_json(self) -> dict[str, Any]:
        """Return the folder and what each run tells of itself."""
        return {"folder": None if self.folder is None else str(self.folder), "runs": [run.as_json() for run in self]}

    def __rich__(self) -> str:
        lines = [run.__rich__() for run in self]
        if self.folder is not None and all(run.done for run in self):
            lines.append(f"\nwith intervals over these seeds: selfsup evaluate {self.folder} --data LABELLED")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"Runs({', '.join(map(repr, self))})"


def open_runs(given: str | os.PathLike[str] | Run | Runs | Sequence[str | os.PathLike[str] | Run]) -> Run | Runs:
    """Return a run, or several: of a list of them, or of a folder with `seed-0`, `seed-1`, … in it."""
    if isinstance(given, Run | Runs):
        return given
    if not isinstance(given, str | os.PathLike):
        several = tuple(one if isinstance(one, Run) else Run(one) for one in given)
        return several[0] if len(several) == 1 else Runs(several)
    if on_hub(given):
        return Run(given)
    folder = user_path(given, "a run")
    names = [] if (folder / "recipe.json").exists() or not folder.is_dir() else list(folder.glob(f"{PREFIX}*"))
    numbered = sorted((int(number), path) for path in names if (number := path.name.removeprefix(PREFIX)).isdecimal())
    return Runs(tuple(Run(path) for _, path in numbered), folder) if numbered else Run(given)
