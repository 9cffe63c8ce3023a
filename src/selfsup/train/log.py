"""What a run leaves to read: metrics.jsonl, TensorBoard events, and the list of samples that could not be read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from selfsup.data import Source
from selfsup.errors import RunFailed


class Log:
    """One line of metrics.jsonl a log step; the same numbers as TensorBoard events. Without a folder: nothing."""

    def __init__(self, folder: Path | None, start: int) -> None:
        self.folder, self.start = folder, start

    def __enter__(self) -> Self:
        if self.folder is not None:
            from torch.utils.tensorboard.writer import SummaryWriter

            path = self.folder / "metrics.jsonl"
            kept = [line for line in _lines(path) if line["step"] <= self.start]  # later ones are written again
            path.write_text("".join(json.dumps(line) + "\n" for line in kept))
            self.file = path.open("a", buffering=1)
            self.events: Any = SummaryWriter(str(self.folder), purge_step=self.start + 1)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if self.folder is not None:
            self.file.close()
            self.events.close()

    def write(self, line: Mapping[str, int | float | str | None]) -> None:
        """Write one line; `step` and whatever numbers belong to it."""
        if self.folder is None:
            return
        try:
            self.file.write(json.dumps({k: round(v, 6) if isinstance(v, float) else v for k, v in line.items()}) + "\n")
        except OSError as error:
            raise RunFailed(f"cannot write {self.folder / 'metrics.jsonl'}: {error.strerror}") from error
        for name, value in line.items():
            if isinstance(value, float):
                self.events.add_scalar(name, value, line["step"])


class Skipped:
    """The samples that could not be read: each named once, in skipped.jsonl, with its reason."""

    def __init__(self, source: Source, folder: Path | None) -> None:
        self.source, self.path = source, folder / "skipped.jsonl" if folder else None
        self.reasons = {line["path"]: line["reason"] for line in _lines(self.path)} if self.path else {}

    def add(self, skipped: Iterable[tuple[int, str]]) -> None:
        """Note samples by number and reason. Raises `RunFailed` when more than half of the data are broken."""
        for index, reason in skipped:
            path = self.source.path(index)
            if path in self.reasons:
                continue
            self.reasons[path] = reason
            if self.path:
                with self.path.open("a") as file:
                    file.write(json.dumps({"path": path, "reason": reason}) + "\n")
            if len(self.reasons) * 2 > len(self.source):
                raise RunFailed(f"more than half of {self.source.name} cannot be read ({self.summary()})")

    def summary(self) -> str:
        """Return the counts by reason in words."""
        return ", ".join(f"{count} {reason}" for reason, count in Counter(self.reasons.values()).most_common())


def _lines(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a JSON-lines file; the last one may have been cut off by a kill."""
    lines = []
    if path.exists():
        for text in path.read_text().splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:
                continue
    return lines
