"""What was read far away, kept here up to a limit: files that are whole, of which the least recently used go first."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from pathlib import Path

from selfsup.base.cache import cache_folder
from selfsup.errors import RunFailed

LIMIT = 8 << 30  # bytes, unless SELFSUP_RANGES gives another number of GiB; at most half of what is free on the disk
LOWER = 0.9  # of the limit: what is left when room was made


class Kept:
    """Ranges of objects by name. Several processes may share it; where it cannot be written, nothing is kept."""

    def __init__(self, folder: Path | None = None, limit: int | None = None) -> None:
        self._lock, self._size = threading.Lock(), -1
        try:
            self.folder: Path | None = folder or cache_folder() / "ranges"
        except RunFailed:
            self.folder = None
        self.limit = _limit(self.folder) if limit is None else limit

    def get(self, state: str, start: int, stop: int) -> bytes | None:
        """Return what was kept of an object in this state; None if it is not there, or not whole."""
        if self.folder is None or not state:
            return None
        path = self._path(state, start, stop)
        try:
            found = path.read_bytes()
            os.utime(path)  # used just now
        except OSError:
            return None
        return found if len(found) == stop - start else None

    def put(self, state: str, start: int, data: bytes) -> None:
        """Keep what was read of an object in this state; without a state nothing would tell when it has changed."""
        if self.folder is None or not state or len(data) > self.limit:
            return
        path = self._path(state, start, start + len(data))
        aside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
        try:
            if not path.parent.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(data)
            os.replace(aside, path)
        except OSError:  # a full or a foreign disk: it is asked for again next time
            with contextlib.suppress(OSError):
                aside.unlink()
            return
        with self._lock:
            self._size = self._size + len(data) if self._size >= 0 else sum(size for _, size, _ in self._files())
            if self._size > self.limit:
                self._make_room()

    def _path(self, state: str, start: int, stop: int) -> Path:
        assert self.folder is not None
        name = hashlib.blake2b(f"{state}\0{start}\0{stop}".encode(errors="surrogateescape"), digest_size=16).hexdigest()
        return self.folder / name[:1] / name

    def _make_room(self) -> None:
        files = sorted(self._files())
        self._size = sum(size for _, size, _ in files)
        for _, size, path in files:
            if self._size <= LOWER * self.limit:
                return
            with contextlib.suppress(OSError):
                path.unlink()
            self._size -= size

    def _files(self) -> list[tuple[int, int, Path]]:
        """Return when each file was last used, its size and its path."""
        found = []
        for path in self.folder.glob("*/*") if self.folder else ():
            with contextlib.suppress(OSError):  # another process removes, too
                about = path.stat()
                found.append((about.st_mtime_ns, about.st_size, path))
        return found


def _limit(folder: Path | None) -> int:
    given = os.environ.get("SELFSUP_RANGES", "")
    wanted = int(float(given) * 2**30) if given.replace(".", "", 1).isdigit() else LIMIT
    while folder is not None and not folder.exists() and folder != folder.parent:
        folder = folder.parent
    with contextlib.suppress(OSError):
        if folder is not None:
            about = os.statvfs(folder)
            wanted = min(wanted, about.f_bavail * about.f_frsize // 2)
    return wanted
