"""The folder for downloads and for files derived from data."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selfsup.errors import RunFailed

REMEDY = "set SELFSUP_CACHE to a folder that can be written"


def cache_folder() -> Path:
    """Return the cache folder: $SELFSUP_CACHE, else ~/.cache/selfsup. Raises `RunFailed` where there is no home."""
    given = os.environ.get("SELFSUP_CACHE")
    if given:
        return Path(os.path.expanduser(given))
    try:
        return Path.home() / ".cache" / "selfsup"
    except RuntimeError:
        raise RunFailed(f"this user has no home folder for the cache: {REMEDY}") from None


@contextmanager
def new_in_cache(path: Path) -> Iterator[Path]:
    """Yield the name of a file or folder to write in the cache, and rename it to `path` when the block ends well.

    Several processes may write the same: each has its own name, and the contents are alike.
    Raises `RunFailed` where the cache cannot be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield aside
            if not path.is_dir():  # a folder that another process was faster with stays
                os.replace(aside, path)
        finally:
            if aside.is_dir():
                shutil.rmtree(aside)
            aside.unlink(missing_ok=True)
    except OSError as error:
        if error.filename is not None and os.fspath(error.filename) not in map(os.fspath, (aside, *path.parents)):
            raise  # of what is read meanwhile
        raise RunFailed(f"cannot write in the cache {path.parent}: {error.strerror}; {REMEDY}") from error
