"""One file here or far away, of which any range is read at once from any thread: no handle and no position is kept."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import random
import re
import stat
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

from selfsup.errors import RunFailed, UserError, need
from selfsup.source import Broken

T = TypeVar("T")
SCHEMES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp", "file": ""}
TRIES, WAIT = 6, 0.25  # of a request; seconds before the second one, and twice as many before each further one
WHO = {  # scheme -> the settings that say who asks
    "s3": "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "gcs": "GOOGLE_APPLICATION_CREDENTIALS",
}
ANSWER = 60  # seconds without a byte after which a request is tried again
BUFFER = 8 << 20  # bytes of a file far away that are read at a time where it is read from end to end
CHANGED = "its shard has changed since its index was made"


class Absent(UserError):
    """A file that is not there, or may not be read."""


class Refused(RunFailed):
    """The same of a file that was there before."""


class Object(Protocol):
    """A file: its `name`, its `size` in bytes, and `state`, which differs when its content does; empty if unknown.

    `far`: whether a request takes long enough to be made ahead, and its answer to be kept.
    """

    name: str
    size: int
    state: str
    far: bool

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes from start to stop, or raise `Broken` where they are not what was there when it was opened.

        Raises `RunFailed` where nothing more can be had from its place.
        """

    def open(self) -> io.BufferedIOBase:
        """Return a file object to read it from end to end."""


def open_object_at(name: str) -> Object:
    """Return a file of this machine or at a URL; `UserError` if it is not there, or may not be read."""
    return _Far(name) if is_url(name) else _Near(name)


def is_url(name: str) -> bool:
    """Return whether a name is a URL of what is read through fsspec; file:// is a path: see `without_file`."""
    return name.partition("://")[0].lower() in SCHEMES and "://" in name


def without_file(name: str) -> str:
    """Return the path of a file:// URL, any other name as it is."""
    return name[7:] if name.lower().startswith("file://") else name


class _Near:
    far = False

    def __init__(self, name: str) -> None:
        try:
            about = os.stat(name)
        except OSError as error:
            raise Absent(f"cannot read {name}: {error.strerror}") from None
        if not stat.S_ISREG(about.st_mode):
            raise UserError(f"{name} is not a regular file")
        self.name, self.size, self._time = name, about.st_size, about.st_mtime_ns
        self.state = f"{about.st_size} {about.st_mtime_ns}"

    def read(self, start: int, stop: int) -> bytes:
        try:
            handle = os.open(self.name, os.O_RDONLY)
            try:
                about = os.fstat(handle)
                if (about.st_size, about.st_mtime_ns) != (self.size, self._time):
                    raise Broken(CHANGED)
                found = os.pread(handle, stop - start, start)
            finally:
                os.close(handle)
        except OSError as error:
            raise Broken(f"its shard cannot be read: {error.strerror}") from None
        if len(found) != stop - start:
            raise Broken("its shard is truncated")
        return found

    def open(self) -> io.BufferedIOBase:
        return open(self.name, "rb")


class _Far:
    far = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.system, self.path = file_system(name)
        try:
            about = answered(name, lambda: self.system.info(self.path))
        except RunFailed as error:
            raise (Absent if isinstance(error, Refused) else UserError)(str(error)) from None
        if not about.get("size"):
            raise UserError(f"{name} tells no size: ranges of it cannot be read; copy it to this machine")
        self.size = int(about["size"])
        tags = [about.get(key) for key in ("ETag", "etag", "md5Hash", "LastModified", "Last-Modified", "mtime")]
        tag = next((str(tag) for tag in tags if tag), "")
        self.state = f"{self.size} {tag}" if tag else ""
        matched = name.startswith("http") and tag.startswith('"')
        self._more: dict[str, Any] = {"headers": {"If-Match": tag}} if matched else {}

    def read(self, start: int, stop: int) -> bytes:
        def ranged() -> bytes:
            found: bytes = self.system.cat_file(self.path, start=start, end=stop, **self._more)
            if len(found) > stop - start:
                raise RunFailed(f"{self.name}: the server sends whole files, not ranges: copy it to this machine")
            if len(found) < stop - start:
                raise OSError("truncated")  # a connection that ended early is tried again
            return found

        return answered(self.name, ranged)

    def open(self) -> io.BufferedIOBase:
        return io.BufferedReader(_Ranges(self), BUFFER)


class _Ranges(io.RawIOBase):
    """The file object of an `Object`."""

    def __init__(self, of: Object) -> None:
        self.of, self.at = of, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.of.size}[whence]
        return self.at

    def readinto(self, room: Any) -> int:
        stop = min(self.at + len(room), self.of.size)
        if stop <= self.at:
            return 0
        found = self.of.read(self.at, stop)
        room[: len(found)] = found
        self.at = stop
        return len(found)


def put(path: Path, name: str) -> None:
    """Copy a file to a URL of an object store, where it appears when it is whole. Raises `RunFailed`, one line."""
    system, there = file_system(name)
    answered(name, lambda: system.put_file(str(path), there), "written")


def answered(name: str, ask: Callable[[], T], done: str = "read") -> T:
    """Return ask(), repeated when it fails: six tries in about eight seconds, after pauses that are in part random.

    What repeating cannot mend (no rights, not there) fails at once. Raises `RunFailed`, one line with the reason.
    """
    scheme = name.partition("://")[0].lower()
    for attempt in range(TRIES):
        try:
            return ask()
        except (RunFailed, UserError, Broken):
            raise
        except Exception as raised:  # whatever the library of the store raises
            hidden = isinstance(raised, FileNotFoundError) and raised.__cause__  # fsspec calls any refusal so
            error = hidden if isinstance(hidden, Exception) else raised
            status = _status(error)
            if isinstance(error, FileNotFoundError) or status in (404, 410):
                raise Refused(f"{name} is not there: check the address") from None
            if isinstance(error, PermissionError) or status in (401, 403) or "Credential" in type(error).__name__:
                remedy = f"; set others: {WHO[scheme]}" if scheme in WHO else ""
                raise Refused(
                    f"{name} may not be {done}: the store refuses these credentials, or has none{remedy}"
                ) from None
            if status == 412:
                raise RunFailed(
                    f"{name} has changed since it was opened: start again with the data as they are"
                ) from None
            if attempt == TRIES - 1 or (status is not None and 400 <= status < 500 and status not in (408, 429)):
                told = f"it answers {status}" if status else " ".join(str(error).split()) or type(error).__name__
                raise RunFailed(
                    f"{name} cannot be {done} after {attempt + 1} tries: {told}; start again to resume"
                ) from None
        time.sleep(WAIT * 2**attempt * random.uniform(0.5, 1.5))
    raise AssertionError  # the loop returns or raises


def _status(error: Exception) -> int | None:
    """Return the HTTP status that an error stands for, of aiohttp, botocore or gcsfs; None where there is none."""
    found = getattr(error, "status", None) or getattr(error, "code", None)
    response = getattr(error, "response", None)
    if found is None and isinstance(response, dict):
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    text = str(found)
    return int(text) if re.fullmatch(r"\d{3}", text) else None


def file_system(name: str) -> tuple[Any, str]:
    """Return the file system of fsspec for a URL, and the path there; `UserError` for what is not installed."""
    scheme = name.partition("://")[0].lower()
    system = _system(scheme)
    return system, name if scheme.startswith("http") else system._strip_protocol(name)


@cache
def _system(scheme: str) -> Any:
    import fsspec

    options: dict[str, Any] = {}
    if module := SCHEMES[scheme]:
        need(module, "cloud")
    if module == "aiohttp":
        timeout = importlib.import_module("aiohttp").ClientTimeout(total=None, sock_connect=ANSWER, sock_read=ANSWER)
        options = {"client_kwargs": {"timeout": timeout, "trust_env": True}, "use_listings_cache": False}
    if module == "s3fs":  # tries are counted in `answered`, not thrice
        theirs = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
        options = {"config_kwargs": {"retries": {"total_max_attempts": 1}, "read_timeout": ANSWER} | theirs}
    system = fsspec.filesystem(scheme, **options)
    if module == "s3fs":
        system.retries = 1
    return system


def listed(folder: str, suffix: str) -> list[str]:
    """Return the URLs of the files in a folder of a store that end so, sorted; none where it cannot be listed."""
    system, path = file_system(folder)
    scheme = folder.partition("://")[0]
    if scheme.startswith("http"):
        return []
    with contextlib.suppress(RunFailed):
        names = answered(folder, lambda: system.ls(path, detail=False))
        return sorted(f"{scheme}://{name}" for name in names if str(name).endswith(suffix))
    return []


def fetched(name: str) -> bytes | None:
    """Return the content of a file here or at a URL; None if it is not there, or may not be read."""
    try:
        found = open_object_at(name)
        return found.read(0, found.size)
    except (Absent, Broken):
        return None
