"""`push`: a finished run to the Hub of Hugging Face. Imports torch only when it is called."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfsup.base.printing import Printable
from selfsup.commands.given import RunName
from selfsup.errors import UserError


@dataclass(frozen=True, repr=False)
class Pushed(Printable):
    """Where the run is now, the `name` by which it is opened, and its files there."""

    address: str
    name: str
    files: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain values."""
        return {"address": self.address, "name": self.name, "files": list(self.files)}

    def __rich__(self) -> str:
        return f"{self.address}: {', '.join(self.files)}\nopen it as {self.name} wherever a run is taken"


def push(run: RunName, name: str, /, *, private: bool = False) -> Pushed:
    """Put a finished run on the Hub of Hugging Face, with a model card, where hf://user/name opens it.

    The card is written from the recipe and the run's evaluation.json: verdict, intervals, baselines, warnings. Of the
    run folder the encoder, the recipe, the evaluation and a tokenizer go there; of paths only their last part, and no
    command line. The token is that of `hf auth login`, or HF_TOKEN. See docs/howto/hub.md.

    Args:
        run: A finished run folder.
        name: Where to put it, user/name; it is created if it does not exist.
        private: If it is created now, let only you see it.

    Raises:
        UserError: For an unfinished run, an impossible name, no token or no permission.
        RunFailed: If the Hub does not answer.
    """
    from selfsup.base import hub
    from selfsup.reports.card import model_card
    from selfsup.reports.report import load_evaluation
    from selfsup.run import START, Run

    run = run if isinstance(run, Run) else Run(run)
    repo, _ = hub.repository(name)
    if not run.done:
        raise UserError(f"{run.folder} is unfinished: run the same `selfsup pretrain` command again")
    evaluation = load_evaluation(run)
    files: dict[str, Path | bytes] = {
        "README.md": model_card(run, evaluation, repo).encode(),
        hub.RECIPE: json.dumps(_shareable(run.recipe), indent=2).encode(),
        hub.ENCODER: run.folder / hub.ENCODER,
    }
    if evaluation is not None:
        files[hub.EVALUATION] = json.dumps(_shareable(evaluation.as_json()), indent=2).encode()
    kept = ["tokenizer.json", *([START] if run.own else [])]  # of a module of one's own also what it began with
    files |= {file: run.folder / file for file in kept if (run.folder / file).exists()}
    address = hub.push(name, files, private)
    return Pushed(address, f"{hub.PREFIX}{repo}", tuple(files))


def _shareable(told: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe or an evaluation without what it tells of the machine: folders and the command line."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(one) for key, one in value.items() if key not in ("command", "notes")}
        if isinstance(value, list):
            return [plain(one) for one in value]
        return Path(value).name if isinstance(value, str) and os.path.isabs(value) else value

    shared: dict[str, Any] = plain(told)
    for part, key in (("data", "name"), ("data", "labels"), ("encoder", "init")):
        if isinstance(text := shared.get(part, {}).get(key), str):
            shared[part][key] = Path(text).name
    return shared
