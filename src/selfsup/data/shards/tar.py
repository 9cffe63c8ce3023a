"""The members of a tar as samples, as WebDataset has them: what shares the name up to the first dot is one sample.

Nothing is ever extracted: only where the bytes of an image lie is noted. Headers are read by Python's tarfile, about
0.1 ms a member on a slow processor, once for each shard.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from selfsup.data.image.decode import MAX_BYTES, SUFFIXES
from selfsup.data.index import HIDDEN_FILES
from selfsup.errors import RunFailed, UserError

LABEL, TEXT, ABOUT = ".cls", ".txt", ".json"
BESIDE = 4096  # bytes of a label, at most; of the rest beside an image, 16 times as many
MEMBERS = 64  # of one sample
SHORT = 64  # bytes of a text that may be a label; longer ones are captions
OUT, LINKS, DEVICES = "paths that leave the folder", "links", "device files"
EMPTY, SPARSE, LARGE = "empty members", "sparse members", "members too large"
FURTHER, ALONE, CAPTIONS, NO_END = "further members of a sample", "samples without an image", "captions", "no end mark"
FRUITLESS = 100_000  # members without an image among them, after which a tar is none of images


class Member(NamedTuple):
    """An image in a tar: its path, where its bytes are, and what lies beside it."""

    path: bytes
    offset: int
    size: int
    label: bytes | None = None
    text: bytes | None = None
    checksum: int | None = None


def read_members(name: str, file: IO[bytes], size: int, left: Counter[str]) -> Iterator[Member]:
    """Yield the images of a tar of so many bytes, in their order; `left` counts what is left out, by reason.

    A label is the text of `.cls`, or `label` of `.json`; a short `.txt` may be one, too.
    Raises `UserError` for what is not a tar, is truncated or damaged, or holds no image among many members.
    """
    group: list[Member] = []
    key, seen, found = "", 0, 0
    try:
        with tarfile.open(fileobj=file, mode="r:", errorlevel=0) as tar:
            for member in _members(tar, size):
                seen += 1
                if (path := _path(member, left)) is not None:
                    folder, base = os.path.split(path)
                    own = os.path.join(folder, base.partition(".")[0])
                    if own != key and group:
                        found += 1
                        yield from _sample(tar, group, left)
                        group = []
                    key = own
                    if len(group) < MEMBERS:
                        group.append(Member(os.fsencode(path), member.offset_data, member.size))
                    else:
                        left[FURTHER] += 1
                if seen == FRUITLESS and not found:
                    raise UserError(f"{name} holds no image among its first {seen:,} members: leave it out")
            yield from _sample(tar, group, left)
            file.seek(tar.offset)
            end = file.read(tarfile.BLOCKSIZE)
            if any(end[: tarfile.BLOCKSIZE]) and len(end) == tarfile.BLOCKSIZE:
                raise tarfile.ReadError("what follows is not a header")
            left[NO_END] += len(end) < tarfile.BLOCKSIZE
    except (UserError, RunFailed, OSError):
        raise
    except Exception as error:  # tarfile may raise anything on headers that are made to mislead it
        told = " ".join(str(error).split()) or "damaged"
        if seen:
            raise UserError(f"{name} is truncated or damaged after {seen:,} members ({told}): get it again") from None
        packed = ", nor may it be compressed (unpack it, or `selfsup pack` its folder)"
        raise UserError(f"{name} is not a tar ({told}){packed}") from None


def _members(tar: tarfile.TarFile, size: int) -> Iterator[tarfile.TarInfo]:
    """Yield the members, of which none is kept; raise `tarfile.ReadError` where they do not move on, or not fit."""
    last = -1
    while (member := tar.next()) is not None:
        if member.size < 0 or tar.offset <= last or member.offset_data + member.size > size:
            raise tarfile.ReadError("unexpected end of data" if tar.offset > last else "headers in a circle")
        last = tar.offset
        tar.members.clear()  # type: ignore[attr-defined]  # or the memory grows with every member
        yield member


def _path(member: tarfile.TarInfo, left: Counter[str]) -> str | None:
    """Return the path of a regular member inside of the folder; None for any other one, which is counted."""
    path = member.name.removeprefix("./")
    reason = ""
    if member.isdir():
        return None
    if member.islnk() or member.issym():
        reason = LINKS
    elif member.issparse():
        reason = SPARSE
    elif not member.isreg():
        reason = DEVICES
    elif path.startswith("/") or ".." in path.split("/") or "\0" in path:
        reason = OUT
    elif os.path.basename(path).startswith("."):
        reason = HIDDEN_FILES
    elif not member.size:
        reason = EMPTY
    elif member.size > MAX_BYTES:
        reason = LARGE
    if reason:
        left[reason] += 1
        return None
    return path


def _sample(tar: tarfile.TarFile, group: list[Member], left: Counter[str]) -> Iterator[Member]:
    """Yield the image of the members of one key, with what is beside it."""
    images = [one for one in group if _suffix(one.path) in SUFFIXES]
    others = {_suffix(one.path): one for one in group if _suffix(one.path) not in SUFFIXES}
    if not images:
        left[ALONE] += bool(group)
        return
    left[FURTHER] += len(images) - 1
    text = _beside(tar, others.pop(TEXT, None), BESIDE)
    if text is not None and (len(text) > SHORT or b"\n" in text):
        left[CAPTIONS] += 1
        text = None
    label = _beside(tar, others.pop(LABEL, None), BESIDE)
    about = others.pop(ABOUT, None)
    if label is None and about is not None:
        label = _label_of(_beside(tar, about, 16 * BESIDE))
    for suffix in others:
        left[suffix or "without a suffix"] += 1
    yield images[0]._replace(label=label, text=text)


def _suffix(path: bytes) -> str:
    return os.path.splitext(os.fsdecode(path))[1].lower()


def _beside(tar: tarfile.TarFile, member: Member | None, most: int) -> bytes | None:
    """Return a small member's content without blanks around it; None for none, and for a large one."""
    if member is None or member.size > most or tar.fileobj is None:
        return None
    tar.fileobj.seek(member.offset)
    return tar.fileobj.read(member.size).strip()


def _label_of(data: bytes | None) -> bytes | None:
    try:
        about: Any = json.loads(data or b"")
    except (ValueError, RecursionError):
        return None
    value = about.get("label") if isinstance(about, dict) else None
    return str(value).encode() if isinstance(value, str | int) and not isinstance(value, bool) else None
