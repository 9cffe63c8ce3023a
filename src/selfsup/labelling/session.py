"""What the page shows and changes: the single writer of the labels, with the propagated ones computed beside it."""

from __future__ import annotations

import string
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from selfsup.data.labels import with_labels
from selfsup.errors import RunFailed, UserError
from selfsup.labelling.assign import Assigned, check_classes
from selfsup.labelling.pool import Pool
from selfsup.labelling.table import printable, write_table

KEYS = string.digits[1:] + string.ascii_lowercase + "0"
SHOWN = 24  # thumbnails of a class, the least sure ones first
GROUPS = 30  # classes whose thumbnails are shown
REMAINING = 3  # suggestions below which new ones are made
LONGEST = 200  # letters of a class name
HISTORY = 10_000  # events that can be undone, or are known when they come twice


class Refused(Exception):
    """An action that was not done; the message says why."""


@dataclass(frozen=True)
class Change:
    """One event: a sample's label before and after (None: none), and the tab that made it."""

    tab: str
    number: int
    before: str | None
    after: str | None


class Session:
    """Labels of a pool in the CSV file `path`, which is written whole after every action and continued if it exists.

    Thread-safe. Raises `UserError` for a file that holds labels of other samples, or labels that are not classes.
    """

    def __init__(self, pool: Pool, path: Path, n: int = 15, unsure_below: float = 0.7, seed: int = 0) -> None:
        self.pool, self.path, self.n, self.unsure_below, self.seed = pool, path, n, unsure_below, seed
        self.labels: dict[int, str] = {}
        self.classes: list[str] = []
        self.keys: dict[str, str] = {}
        self.version = 0
        self._history: list[Change] = []
        self._events: dict[str, None] = {}
        self._assigned: Assigned | None = None
        self._names: list[str] = []  # the classes of the assigned labels
        self._queue: list[int] = []
        self._message = ""
        self._changed = threading.Condition()
        self._dirty, self._stopped = True, False
        self._read()
        self._thread = threading.Thread(target=self._work, name="propagate", daemon=True)
        self._thread.start()

    @property
    def count(self) -> int:
        """How many samples have a given label."""
        return len(self.labels)

    def close(self) -> None:
        """End the computation."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join()

    def wait(self, seconds: float = 60) -> bool:
        """Wait until the propagated labels are those of the given ones; return whether they are."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._dirty, seconds)

    def act(self, event: Mapping[str, Any]) -> dict[str, Any] | None:
        """Do one action, once, save, and return its sample, None for an action that was done before.

        `kind` is label (with number, name, and `before`, the label that the tab saw), or undo.

        Raises `Refused` where another tab has changed the sample, for an action that makes no sense, and where the
        file cannot be written, which leaves everything as it was.
        """
        kind, tab, name = event.get("kind"), str(event.get("tab"))[:64], str(event.get("event"))[:64]
        with self._changed:
            if name in self._events:
                return None
            change: Change | None = None  # that is undone
            if kind == "undo":
                change = next((change for change in reversed(self._history) if change.tab == tab), None)
                if change is None:
                    raise Refused("there is nothing to undo")
                step = Change(tab, change.number, change.after, change.before)
            elif kind == "label":
                number, seen = self._number(event.get("number")), event.get("before")
                step = Change(tab, number, None if seen is None else str(seen), class_name(event.get("name")))
            else:
                raise Refused("unknown action")
            now = self.labels.get(step.number)
            if now != step.after:
                if now != step.before:
                    if change is not None:
                        self._history.remove(change)
                    raise Refused(
                        f"another tab has changed this sample, to {now!r}" if now else "another tab undid this"
                    )
                self._set(step.number, step.after)
                try:
                    self._save()
                except RunFailed as error:
                    self._set(step.number, now)
                    raise Refused(str(error)) from None
            if change is not None:
                self._history.remove(change)
            elif now != step.after:
                self._history = [*self._history[-HISTORY:], step]
            self._events[name] = None
            if len(self._events) > HISTORY:
                del self._events[next(iter(self._events))]
            self._dirty = True
            self.version += 1
            self._changed.notify_all()
            return self._item(step.number)

    def state(self) -> dict[str, Any]:
        """Return all that the page shows, as plain values."""
        with self._changed:
            queue = [self._item(number) for number in self._queue if number not in self.labels][: self.n]
            given = dict.fromkeys(self.classes, 0)
            for name in self.labels.values():
                given[name] += 1
            spread = self._spread()
            classes = [
                {"name": name, "key": self.keys[name], "given": given[name], "all": spread.get(name, given[name])}
                for name in self.classes
            ]
            total, unsure = len(self.pool.numbers), self._unsure()
            return {
                "version": self.version, "busy": self._dirty, "message": self._message, "total": total,
                "given": self.count, "unsure": unsure, "classes": classes, "queue": queue, "groups": self._groups(),
                "kind": self.pool.source.kind, "file": printable(self.path.name), "unsure_below": self.unsure_below,
            }  # fmt: skip

    def item(self, number: int) -> dict[str, Any]:
        """Return what the page shows of one sample. Raises `Refused` for one that is not there."""
        with self._changed:
            return self._item(self._number(number))

    def _read(self) -> None:
        if not self.path.exists():
            return
        try:
            labels = with_labels(self.pool.source, str(self.path)).labels
        except UserError as error:
            if "gives no label" in str(error):
                return
            raise UserError(f"{error}; or give another --out than {self.path}") from None
        assert labels is not None
        check_classes(labels, str(self.path))
        for number in np.flatnonzero(labels.ids >= 0).tolist():
            self._set(number, labels.classes[labels.ids[number]])

    def _save(self) -> None:
        rows = ((self.pool.source.path(number), name) for number, name in self.labels.items())
        write_table(self.path, ("path", "label"), rows)

    def _set(self, number: int, name: str | None) -> None:
        if name is None:
            self.labels.pop(number, None)
            return
        if name not in self.keys:
            self.classes.append(name)
            self.keys[name] = free_key(name, self.keys.values())
        self.labels.pop(number, None)  # the last one comes last
        self.labels[number] = name

    def _number(self, number: Any) -> int:
        if type(number) is not int or not 0 <= number < len(self.pool.source) or self.pool.row_of[number] < 0:
            raise Refused("there is no such sample")
        return number

    def _item(self, number: int) -> dict[str, Any]:
        row, assigned = int(self.pool.row_of[number]), self._assigned
        guess, sure = None, 0.0
        if assigned is not None and assigned.guess[row] >= 0:
            guess, sure = self._names[assigned.guess[row]], float(assigned.confidence[row])
        path = printable(self.pool.source.path(number))
        label = self.labels.get(number)
        return {"number": number, "path": path, "label": label, "guess": guess, "confidence": round(sure, 3)}

    def _spread(self) -> dict[str, int]:
        if self._assigned is None:
            return {}
        ids = self._assigned.ids
        counts = np.bincount(ids[ids >= 0], minlength=len(self._names))
        return dict(zip(self._names, counts.tolist(), strict=True))

    def _unsure(self) -> int:
        if self._assigned is None:
            return len(self.pool.numbers) - self.count
        return int((self._assigned.ids < 0).sum())

    def _groups(self) -> list[dict[str, Any]]:
        """Return the wall: labels that others contradict, unsure samples, each class, and the given labels.

        The least sure come first, of the given ones the last.
        """
        assigned, numbers = self._assigned, self.pool.numbers
        last = [self._item(number) for number in [*reversed(self.labels)][:SHOWN] if self.pool.row_of[number] >= 0]
        by_hand = [{"kind": "given", "name": "", "count": self.count, "items": last}] if last else []
        if assigned is None:
            return by_hand
        doubted = [int(numbers[doubt.row]) for doubt in assigned.doubts]
        groups: list[dict[str, Any]] = []
        if doubted:
            items = [
                self._item(number) | {"guess": self._names[doubt.instead], "confidence": round(doubt.confidence, 3)}
                for number, doubt in zip(doubted, assigned.doubts, strict=True)
            ]
            groups.append({"kind": "doubtful", "name": "", "count": len(items), "items": items[:SHOWN]})
        given = np.zeros(len(numbers), bool)
        given[[row for row in self.pool.row_of[list(self.labels)].tolist() if row >= 0]] = True
        for place, name in [(-1, ""), *enumerate(self._names)][: GROUPS + 1]:
            rows = np.flatnonzero((assigned.ids == place) & ~given)
            rows = rows[np.argsort(assigned.confidence[rows], kind="stable")]
            items = [self._item(int(number)) for number in numbers[rows[:SHOWN]]]
            if len(rows):
                kind = "unsure" if place < 0 else "class"
                groups.append({"kind": kind, "name": name, "count": len(rows), "items": items})
        return groups + by_hand

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._dirty or self._stopped)
                if self._stopped:
                    return
                begun, labels = self.version, dict(self.labels)
                queue = [number for number in self._queue if number not in labels]
            names = [name for name in self.classes if name in set(labels.values())]
            place = {name: number for number, name in enumerate(names)}
            known = {number: place[name] for number, name in labels.items()}
            assigned, message = None, ""
            try:
                if len(names) >= 2:
                    assigned = self.pool.assign(known, len(names), self.unsure_below)
                if len(queue) < REMAINING:
                    found, _ = self.pool.next(known, self.n + len(queue), "auto", self.seed, assigned)
                    queue += [item.row for item in found.suggestions if item.row not in queue]
            except UserError as error:
                message = str(error)
            except Exception as error:  # the page must say so; labels are saved as before
                message = f"the labels cannot be spread: {error}"
            with self._changed:
                self._assigned, self._names, self._message = assigned, names, message
                self._queue = queue
                self._dirty = self.version != begun
                self.version += not self._dirty
                self._changed.notify_all()


def class_name(name: Any) -> str | None:
    """Return the name of a class as it is kept, None for none. Raises `Refused` for one that a file cannot keep."""
    if name is None:
        return None
    words = " ".join(str(name).split())
    if not words or len(words) > LONGEST or "|" in words or not words.isprintable():
        raise Refused(f"a class has a name of 1 to {LONGEST} characters, without |")
    return words


def free_key(name: str, taken: Any) -> str:
    """Return the key of a class: its name if that is one character, a letter of it, or any; '' where all are taken."""
    wanted = name.lower() if len(name) == 1 else ""
    letters = [letter for letter in name.lower() if letter in KEYS]
    return next((key for key in [*wanted, *letters, *KEYS] if key not in taken and key != " "), "")
