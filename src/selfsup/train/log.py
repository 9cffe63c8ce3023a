"""The logs of a run: metrics.jsonl, TensorBoard events, and the list of samples that could not be read."""

from __future__ import annotations

import json
import os
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from selfsup.base.notes import say
from selfsup.base.writing import write_atomically
from selfsup.errors import RunFailed
from selfsup.source import Source


class Log:
    """One line of metrics.jsonl a log step; the same numbers as TensorBoard events. Without a folder: nothing."""

    def __init__(self, folder: Path | None, start: int) -> None:
        self.folder, self.start = folder, start

    def __enter__(self) -> Self:
        if self.folder is not None:
            path = self.folder / "metrics.jsonl"
            before = path.read_bytes() if path.exists() else b""
            kept = [
                line for line in _lines(before, step=int) if line["step"] <= self.start
            ]  # later ones are written again
            write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
            self.file, self.events = _Appended(path), Events(self.folder, self.start + 1)
        return self

    def __exit__(self, exc_type: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if self.folder is not None:
            self.file.close()
            self.events.file.close()

    def write(self, line: Mapping[str, int | float | str | None]) -> None:
        """Write one line; `step` and whatever numbers belong to it. Raises `RunFailed` if it cannot be written."""
        if self.folder is not None:
            rounded = {key: round(value, 6) if isinstance(value, float) else value for key, value in line.items()}
            self.file.write(json.dumps(rounded).encode() + b"\n")
            self.events.write(int(line["step"] or 0), {k: v for k, v in line.items() if isinstance(v, float)})


class Events:
    """TensorBoard's file of numbers by step; those of an earlier file from `start` on are void.

    Written at once and without a thread, so that an error surfaces where it occurs.
    """

    def __init__(self, folder: Path, start: int) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.event, self.summary = event_pb2.Event, summary_pb2.Summary
        name = f"events.out.tfevents.{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}"
        self.file = _Appended(folder / name)
        self.records = RecordWriter(self.file)
        self._add(file_version="brain.Event:2")
        self._add(step=start, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write the numbers of a step."""
        values = [self.summary.Value(tag=name, simple_value=number) for name, number in numbers.items()]
        self._add(step=step, summary=self.summary(value=values))

    def _add(self, **content: Any) -> None:
        self.records.write(self.event(wall_time=time.time(), **content).SerializeToString())


class Skipped:
    """The samples that could not be read: each named once, in skipped.jsonl, with its reason.

    All processes of a run write to that file, and read there what the others have written.
    """

    def __init__(self, source: Source, folder: Path | None) -> None:
        self.source, self.path, self.known = source, folder / "skipped.jsonl" if folder else None, 0
        self.reasons: dict[str, str] = {}
        if self.path and self.path.exists():
            content = self.path.read_bytes()
            if not content.endswith(b"\n"):  # cut off by a kill
                os.truncate(self.path, content.rfind(b"\n") + 1)
        self._catch_up()

    def add(self, skipped: Iterable[tuple[int, str]]) -> None:
        """Note samples by number and reason. Raises `RunFailed` when more than half of the data are broken."""
        for index, reason in skipped:
            path = self.source.path(index)
            if path in self.reasons:
                continue
            self._catch_up()
            if self.path and path not in self.reasons:
                file = _Appended(self.path)
                file.write(json.dumps({"path": path, "reason": reason}).encode() + b"\n")
                file.close()
            self.reasons[path] = reason
            if len(self.reasons) * 2 > len(self.source):
                raise RunFailed(f"more than half of {self.source.name} cannot be read ({self.summary()})")

    def _catch_up(self) -> None:
        """Read what other processes have written since."""
        if self.path is None or not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self.known)
            new = file.read()
        self.known += len(new)
        self.reasons |= {line["path"]: line["reason"] for line in _lines(new, path=str, reason=str)}

    def say(self, what: str) -> None:
        """Say how many samples could not be read, and what became of them; nothing if all could."""
        if self.reasons:
            where = f"; {self.path} lists them" if self.path else ""
            name = self.source.name
            say(f"{name}: {len(self.reasons):,} samples could not be read and {what} ({self.summary()}){where}")

    def summary(self) -> str:
        """Return the counts by reason in words."""
        return ", ".join(f"{count} {reason}" for reason, count in Counter(self.reasons.values()).most_common())


class _Appended:
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


def _lines(content: bytes, **types: type) -> Iterator[dict[str, Any]]:
    """Yield the JSON lines that have these entries; the last one may have been cut off by a kill."""
    for text in content.decode(errors="replace").split("\n"):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and all(isinstance(line.get(key), one) for key, one in types.items()):
            yield line
