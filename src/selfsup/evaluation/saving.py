"""Results beside a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from selfsup.base.notes import say
from selfsup.base.writing import write_atomically
from selfsup.errors import RunFailed


def save_beside(values: dict[str, Any], folder: Path | None, name: str) -> None:
    """Write plain values as JSON into a run folder, None for nowhere; say it where that may only be read."""
    if folder is None:
        return
    try:
        write_atomically(folder / name, json.dumps(values, indent=2).encode())
    except RunFailed as error:  # the numbers are worth more than the note
        say(str(error))
