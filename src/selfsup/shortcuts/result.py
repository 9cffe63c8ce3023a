"""The result of an audit: a table, words, JSON and an image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table

from selfsup.base.figures import Figure
from selfsup.base.printing import Printable
from selfsup.evaluation.verdict import FEW_STEPS

FOUND = ("shortcut", "trace")
LARGE = 0.5  # of the encoder's gain over a blind guess: from here on a cue is a shortcut, below it a trace


@dataclass(frozen=True)
class Row:
    """A shortcut probe on held-out puzzles: `score` ± `half` (95%), which is `gain` ± `gain_half` over a blind guess.

    `fraction`: its gain divided by the encoder's (None: the encoder is no better than a blind guess). `verdict`:
    "shortcut"; "trace"; "no" where its interval reaches a blind guess and no shortcut; or "undecided". `counter`:
    options of the task that counter the cue; `with_counter`: the same shortcut probe with them (None: not tried, for
    the reason `why_not`).
    """

    cue: str
    about: str
    score: float
    half: float
    gain: float
    gain_half: float
    fraction: float | None
    verdict: str
    counter: Mapping[str, Any]
    with_counter: Row | None = None
    why_not: str = ""


@dataclass(frozen=True, repr=False)
class Audit(Printable):
    """Every shortcut probe beside a blind guess and a small encoder, all scored by one `metric`.

    `settled_by`: the option that is enough to decide what is undecided; empty where nothing is.
    """

    task: str
    data: str
    metric: str
    chance: float
    encoder: str
    encoder_score: float
    encoder_half: float
    rows: tuple[Row, ...]
    left_out: tuple[str, ...]
    steps: int
    encoder_steps: int
    held_out: int
    samples: str  # the plural noun: images
    settled_by: str = ""
    image: Path | None = None

    @property
    def found(self) -> list[Row]:
        """The cues that reveal the label, the strongest first."""
        return sorted(
            (row for row in self.rows if row.verdict in FOUND),
            key=lambda row: -math.inf if row.fraction is None else -row.fraction,
        )

    @property
    def undecided(self) -> list[Row]:
        """The cues of which cannot be told whether they reveal the label, or how much of it."""
        return [row for row in self.rows if row.verdict == "undecided"]

    @property
    def finding(self) -> str:
        """The verdict in a word: "shortcut", "undecided", "trace" or "no", the first that a cue has."""
        return next(
            (word for word in ("shortcut", "undecided", "trace") if any(row.verdict == word for row in self.rows)), "no"
        )

    @property
    def verdict(self) -> str:
        """The finding in words, one line per cue, and what would settle what is undecided."""
        steps = min(self.steps, self.encoder_steps)
        if steps < FEW_STEPS:
            few = f"{steps} step{'s' if steps > 1 else ''} of training {'are' if steps > 1 else 'is'} too few"
            needed = f"at least {FEW_STEPS} are needed: {self.settled_by}"
            return f"Undecided: {few} to tell what a cue reveals, {needed}."
        if not self.found and not self.undecided:
            return f"No cue solves {self.task} on {self.data}: no shortcut probe does better than a blind guess."
        lines = [self._told(row) for row in self.found]
        if self.undecided and self.undecided[0].fraction is None:
            lines.append(self._nothing_to_compare())
        else:
            lines += [self._told(row) for row in self.undecided]
        if self.settled_by:
            lines.append(f"What would settle it: {self.settled_by}.")
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain values."""
        image = None if self.image is None else str(self.image)
        return asdict(self) | {"finding": self.finding, "verdict": self.verdict, "image": image}

    def __rich__(self) -> Group:
        unit = {"accuracy": "accuracy, %", "retrieval": "own second view found, %", "loss": "loss"}[self.metric]
        title = f"{self.task} on {self.data}: {unit}, on {self.held_out:,} held-out {self.samples}"
        table = Table(title=title, title_justify="left")
        for column in ("cue", "score", "fraction of the encoder's gain", "verdict", "with the counter-measure"):
            table.add_column(column)
        table.add_row("nothing (chance)", self._number(self.chance), "", "", "")
        for row in self.rows:
            after = row.with_counter
            countered = "" if after is None else f"{self._number(after.score, after.half)} {options(row.counter)}"
            fraction = f"{100 * row.fraction:.0f}%" if row.verdict in FOUND and row.fraction is not None else ""
            table.add_row(row.cue, self._number(row.score, row.half), fraction, row.verdict, countered)
        table.add_row(f"all: {self.encoder}", self._number(self.encoder_score, self.encoder_half), "100%", "", "")
        notes = [f"{note}" for note in self.left_out]
        where = [] if self.image is None else [str(self.image)]
        return Group(self.verdict, "", table, *notes, f"each shortcut probe was trained for {self.steps} steps", *where)

    def draw(self) -> Figure:
        """Return an image: the scores with their intervals, beside a blind guess and the encoder."""
        scale = 1 if self.metric == "loss" else 100
        names = [row.cue for row in self.rows]
        figure = Figure((7, 1.2 + 0.4 * len(names)), layout="constrained")
        axes = figure.subplots()
        apart = 0.12 if any(row.with_counter for row in self.rows) else 0.0  # else each bar stands at its cue's name
        for offset, rows, word in (
            (-apart, list(self.rows), "as it is"),
            (apart, [row.with_counter for row in self.rows], "with the counter-measure"),
        ):
            shown = [(place, row) for place, row in enumerate(rows) if row is not None]
            if shown:
                places, scores = [p + offset for p, _ in shown], [scale * row.score for _, row in shown]
                axes.errorbar(scores, places, xerr=[scale * r.half for _, r in shown], fmt="o", capsize=3, label=word)
        axes.axvline(scale * self.chance, color="0.5", linestyle=":", label="blind guess")
        axes.axvline(scale * self.encoder_score, color="C2", linestyle="--", label=self.encoder)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)  # from the top down
        axes.set_xlabel("loss" if self.metric == "loss" else f"{self.metric}, %")
        axes.set_title(f"{self.task} on {self.data}", fontsize="medium")
        figure.legend(loc="outside lower center", ncols=4, fontsize="small")
        return figure

    def _number(self, value: float, half: float | None = None) -> str:
        digits, scale = (3, 1) if self.metric == "loss" else (1, 100)
        return f"{scale * value:.{digits}f}" + ("" if half is None else f" ±{scale * half:.{digits}f}")

    def _told(self, row: Row) -> str:
        percent = "" if self.metric == "loss" else "%"
        told = (
            f"{row.cue} ({row.about}): {self._number(row.score, row.half)}{percent} where a blind guess gives "
            f"{self._number(self.chance)}{percent} and {self.encoder} {self._number(self.encoder_score)}{percent}: "
            + ("" if row.verdict == "undecided" else f"a {row.verdict}.")
        )
        if row.verdict == "undecided":
            return f"{told}undecided, from nothing to a shortcut all lies in the interval."
        if not row.counter:
            return f"{told} No option of {self.task} counters it: it is in the {self.samples}."
        counter = options(row.counter)
        if row.with_counter is None:
            return f"{told} {counter} counters it{': ' + row.why_not if row.why_not else ''}."
        after = f"{self._number(row.with_counter.score, row.with_counter.half)}{percent}"
        left = {
            "no": "nothing is left", "trace": "a trace is left", "shortcut": "it is still there",
            "undecided": "whether something is left is undecided",
        }  # fmt: skip
        return f"{told} {counter} counters it: with it {after}, {left[row.with_counter.verdict]}."

    def _nothing_to_compare(self) -> str:
        percent = "" if self.metric == "loss" else "%"
        better = [row.cue for row in self.undecided if row.gain > row.gain_half]
        told = (
            f"Undecided: {', '.join(row.cue for row in self.undecided)}. With {self.encoder_steps:,} steps "
            f"{self.encoder}, which sees everything, is no better than a blind guess itself "
            f"({self._number(self.encoder_score, self.encoder_half)}{percent} where that gives "
            f"{self._number(self.chance)}{percent})"
        )
        return f"{told}, and {', '.join(better)} alone {'is' if len(better) == 1 else 'are'}." if better else f"{told}."


def options(values: Mapping[str, Any]) -> str:
    """Return options as they are written on the command line."""
    words = []
    for name, value in values.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            several = value if isinstance(value, list | tuple) else [value]
            words.append(" ".join([f"--{flag}", *map(str, several)]))
    return " ".join(words)
