"""Files that are whole whatever happens while they are written, and folders that one process at a time may write.

Both rely on locks that the kernel drops when a process ends, however it ends; a killed one's leftovers are overwritten.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from selfsup.errors import RunFailed, UserError


class InUse(RunFailed):
    """Another process is writing the same file."""


class OtherSystem(UserError, ImportError):
    """This system lacks what selfsup needs; an ImportError too, for tools that try what can be imported."""


try:
    import fcntl
except ImportError:
    raise OtherSystem("selfsup runs on Linux and macOS; on Windows, in the Windows Subsystem for Linux") from None

LOCK = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)  # of file systems without locks: no process is refused


def part_name(name: str) -> str:
    """Return the name under which a file is written before it is renamed."""
    return f".{name}.part"


@contextmanager
def whole_file(path: Path, several: bool = False) -> Iterator[IO[bytes]]:
    """Yield a file that takes the place of `path` when the block ends well: a reader sees the old content or the new.

    `several` processes, on any machines, may write it at once, because they write the same: one of them remains, and
    what killed ones left behind is removed.
    Raises `RunFailed` if the disk is full or not writable, and (unless `several` may) `InUse` if another process is
    writing it.
    """
    part = path.with_name(part_name(f"{path.name}.{socket.gethostname()}-{os.getpid()}" if several else path.name))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _claimed(part) as file:
            try:
                file.truncate(0)
                yield file
                file.flush()
                os.fsync(file.fileno())
                _rename(part, path, several)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except _Busy:
        raise InUse(f"cannot write {path}: another process is writing it") from None
    except OSError as error:
        raise RunFailed(f"cannot write {path}: {error.strerror or error}") from error


def _rename(part: Path, path: Path, several: bool) -> None:
    try:
        os.replace(part, path)
    except FileNotFoundError:
        if not (several and path.exists()):  # else another one, which was done, has tidied up
            raise
    if several:
        for left in path.parent.glob(part_name(f"{path.name}.*")):
            left.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a `whole_file`."""
    with whole_file(path) as file:
        file.write(data)


@contextmanager
def only_here(folder: Path) -> Iterator[None]:
    """Make a folder and keep other processes out of it; if it was made here and stays empty, it is removed again.

    Raises `UserError` if another process has it, or it is not writable.
    """
    made, lock = not folder.exists(), folder / LOCK
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(_claimed(lock))
        except _Busy:
            raise UserError(f"{folder} is in use by {_owner(lock)}; wait for it, or give another --out") from None
        except OSError as error:
            raise UserError(f"cannot write in {folder}: {error.strerror}; give another --out") from None
        try:
            with contextlib.suppress(OSError):  # on a full disk the message to others names no process
                file.truncate(0)
                file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
                file.flush()
            yield
        finally:
            with contextlib.suppress(OSError):
                lock.unlink()
            if made:
                with contextlib.suppress(OSError):
                    folder.rmdir()


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Wait until no other process is in such a block with the same lock file; the folder of it is there."""
    with path.open("ab") as file:
        with contextlib.suppress(OSError):  # of file systems without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


class _Busy(Exception):
    """Another process has the lock."""


def _owner(lock: Path) -> str:
    try:
        return lock.read_text(errors="replace") or "another process"
    except OSError:
        return "another process"


@contextmanager
def _claimed(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, made if it is not there, and lock it. Raises `_Busy` if another process has it."""
    while True:
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _Busy from None
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
            try:
                current = os.path.samestat(os.stat(path), os.fstat(file.fileno()))
            except FileNotFoundError:
                current = False
            if current:  # and not a file that its owner has just renamed or removed
                yield file
                return


class Appended:
    """A file to which whole writes are appended without a buffer, so that closing it cannot fail."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.file = path.open("ab", buffering=0)
        except OSError as error:
            raise RunFailed(f"cannot write {path}: {error.strerror}") from error

    def write(self, data: bytes) -> None:
        """Write. Raises `RunFailed` if the disk is full or not writable."""
        try:
            while data:
                data = data[self.file.write(data) :]
        except OSError as error:
            raise RunFailed(f"cannot write {self.path}: {error.strerror}") from error

    def close(self) -> None:
        """Close the file."""
        self.file.close()
