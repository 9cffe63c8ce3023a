"""The folder for downloads and for files derived from data."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selfsup.errors import RunFailed, UserError

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


def derived_path(kind: str, file: bytes, about: list[Any], suffix: str) -> Path:
    """Return where what is derived from a user's file is kept, named by the file's path, size and time and by `about`.

    Another file of the same name has another place, and so has one that is not there.
    """
    state: tuple[int, ...] = ()
    with contextlib.suppress(OSError):
        found = os.stat(file)
        state = found.st_size, found.st_mtime_ns
    whole = [os.fsdecode(os.path.realpath(file)), *state, *about]
    name = hashlib.blake2b(json.dumps(whole).encode(errors="surrogateescape"), digest_size=16).hexdigest()
    return cache_folder() / kind / name[:2] / f"{name}{suffix}"


def check_room(what: str, needed: float, remedy: str) -> None:
    """Raise `UserError` where so many bytes will not fit on the disk of the cache."""
    folder = cache_folder()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > 0.9 * free:
        raise UserError(
            f"{what} need about {needed / 2**30:.1f} GiB in the cache, where {free / 2**30:.1f} GiB are free: "
            f"{remedy}set SELFSUP_CACHE to a larger disk"
        )


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
