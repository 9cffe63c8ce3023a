"""The logs of a run: metrics.jsonl, what else takes its numbers, and the list of samples that could not be read."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from selfsup.base.notes import say
from selfsup.base.writing import Appended, write_atomically
from selfsup.errors import RunFailed
from selfsup.source import Source
from selfsup.train.loggers import Loggers, Numbers, read_loggers


class Log:
    """One line of metrics.jsonl a log step; the same numbers to loggers and to a function. Without a folder: the last.

    Args:
        folder: of the run.
        start: the step that the run begins after.
        loggers: as `read_loggers` gives them, None for the default.
        on_log: called with each line; what it raises ends the run.
    """

    def __init__(
        self,
        folder: Path | None,
        start: int,
        loggers: Sequence[str] | None = None,
        on_log: Callable[[dict[str, Any]], object] | None = None,
    ) -> None:
        self.folder, self.start, self.on_log = folder, start, on_log
        self.names = read_loggers(None) if loggers is None else loggers

    def __enter__(self) -> Self:
        if self.folder is not None:
            path = self.folder / "metrics.jsonl"
            before = path.read_bytes() if path.exists() else b""
            kept = [
                line for line in read_lines(before, step=int) if line["step"] <= self.start
            ]  # later ones are written again
            write_atomically(path, "".join(json.dumps(line) + "\n" for line in kept).encode())
            self.file, self.loggers = Appended(path), Loggers(self.names, self.folder, self.start + 1)
        return self

    def __exit__(self, exc_type: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if self.folder is not None:
            self.file.close()
            self.loggers.close(failed=exc_type is not None)

    def write(self, line: Numbers) -> None:
        """Write one line; `step` and whatever numbers belong to it. Raises `RunFailed` if it cannot be written."""
        if self.folder is not None:
            rounded = {key: round(value, 6) if isinstance(value, float) else value for key, value in line.items()}
            self.file.write(json.dumps(rounded).encode() + b"\n")
            self.loggers.write(int(line["step"] or 0), {key: v for key, v in line.items() if key != "step"})
        if self.on_log is not None:
            self.on_log(dict(line))


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
                file = Appended(self.path)
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
        self.reasons |= {line["path"]: line["reason"] for line in read_lines(new, path=str, reason=str)}

    def say(self, what: str) -> None:
        """Say how many samples could not be read, and `what` was done then; nothing if all could."""
        if self.reasons:
            where = f"; {self.path} lists them" if self.path else ""
            name, count = self.source.name, len(self.reasons)
            say(f"{name}: {count:,} sample{'s' * (count != 1)} could not be read, {what} ({self.summary()}){where}")

    def summary(self) -> str:
        """Return the counts by reason in words."""
        return ", ".join(f"{count} {reason}" for reason, count in Counter(self.reasons.values()).most_common())


def read_lines(content: bytes, **types: type) -> Iterator[dict[str, Any]]:
    """Yield the JSON lines that have these entries; the last one may have been cut off by a kill."""
    for text in content.decode(errors="replace").split("\n"):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and all(isinstance(line.get(key), one) for key, one in types.items()):
            yield line
