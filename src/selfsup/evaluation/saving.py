"""Results beside a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from selfsup.base.printing import Printable
from selfsup.base.writing import write_atomically
from selfsup.errors import RunFailed


def save_beside(result: Printable, folder: Path | None, name: str) -> None:
    """Write a result as JSON into a run folder, None for nowhere; say it where that may only be read."""
    if folder is None:
        return
    try:
        write_atomically(folder / name, json.dumps(result.as_json(), indent=2).encode())
    except RunFailed as error:  # the numbers are worth more than the note
        print(error, file=sys.stderr)
