"""The folder for downloads and for files derived from data."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the cache folder: $SELFSUP_CACHE, else ~/.cache/selfsup."""
    return Path(os.environ.get("SELFSUP_CACHE", Path.home() / ".cache" / "selfsup"))
