"""What an evaluation returns: numbers that print as a table, draw as a curve, and are saved and read again."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table

from selfsup.base.printing import Printable
from selfsup.base.writing import write_atomically
from selfsup.errors import UserError, need
from selfsup.evaluation.labels_saved import Saved, sentence

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Score:
    """The accuracy of one representation read by one protocol with so many labels per class (None: all of them).

    `mean` over the draws in `values`, `half` of its 95% interval (nan for a single value), of the headline metric;
    `also` holds mean and half of the other ones.
    """

    representation: str
    protocol: str
    shots: int | None
    mean: float
    half: float
    values: tuple[float, ...]
    also: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation(Printable):
    """Few-label accuracies beside their baselines; `about` names data, split, seeds, encoder and protocol.

    `saved`: by protocol, what from-scratch training needs to be as good. `readings`: by representation and name.
    """

    about: dict[str, Any]
    scores: tuple[Score, ...]
    saved: Mapping[str, tuple[Saved, ...]] = field(default_factory=dict)
    readings: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def score(self, representation: str, protocol: str, shots: int | None) -> Score:
        """Return one entry. Raises `KeyError` where there is none."""
        for score in self.scores:
            if (score.representation, score.protocol, score.shots) == (representation, protocol, shots):
                return score
        raise KeyError((representation, protocol, shots))

    @property
    def headline(self) -> str:
        """The labels saved, in a sentence; empty where from scratch was not trained."""
        for protocol, entries in self.saved.items():
            return sentence(entries, f"{self.about['task']} ({protocol})")
        return ""

    def as_json(self) -> dict[str, Any]:
        """Return plain numbers; an interval that one value does not have is null."""
        scores = [asdict(score) for score in self.scores]
        for score in scores:
            score["half"] = _plain(score["half"])
            score["also"] = {name: {"mean": mean, "half": _plain(half)} for name, (mean, half) in score["also"].items()}
        saved = {protocol: [entry.as_json() for entry in entries] for protocol, entries in self.saved.items()}
        readings = {name: {key: _plain(value) for key, value in row.items()} for name, row in self.readings.items()}
        return {
            "about": self.about, "headline": self.headline, "scores": scores, "saved": saved, "readings": readings,
        }  # fmt: skip

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `as_json` to a file, which `load` reads. Raises `RunFailed` where it cannot be written."""
        write_atomically(Path(path), json.dumps(self.as_json(), indent=2).encode())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Evaluation:
        """Read what `save` wrote. Raises `UserError` for anything else."""
        try:
            plain = json.loads(Path(path).read_text(encoding="utf-8"))
            scores = tuple(_score(entry) for entry in plain["scores"])
            saved = {key: tuple(map(Saved.of, entries)) for key, entries in plain["saved"].items()}
            readings = {
                name: {key: _number(value) for key, value in row.items()} for name, row in plain["readings"].items()
            }
            about = plain["about"]
            if not scores:
                raise ValueError("it has no scores")
            _check_about(about, scores)
            return cls(about, scores, saved, readings)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
            raise UserError(f"{path} is no saved evaluation: {reason}") from None

    def to_pandas(self) -> Any:
        """Return a DataFrame with a row a score: `labels` is the mean number a class, `shots` missing for all."""
        metric = self.about["metric"]
        rows = [
            {
                "representation": score.representation,
                "protocol": score.protocol,
                "shots": score.shots,
                "labels": self.labels(score.shots),
                metric: score.mean,
                "half": score.half,
                "draws": len(score.values),
                **{name: mean for name, (mean, _) in score.also.items()},
            }
            for score in self.scores
        ]
        return need("pandas", "demo").DataFrame(rows).astype({"shots": "Int64"})

    def plot(self) -> Figure:
        """Return a matplotlib Figure: the curves of all representations with their 95% intervals, a panel a reader."""
        from selfsup.evaluation.drawing import curves

        return curves(self)

    def labels(self, shots: int | None) -> float:
        """Return how many labels were drawn, a class where shots are counted a class."""
        return float(self.about["labels"]["all" if shots is None else str(shots)])

    def __rich__(self) -> Group:
        about = self.about
        parts: list[Any] = [self.headline, ""] if self.headline else []
        parts.append(self._scores())
        if self.readings:
            parts.append(self._readings())
        if "chance" in about:
            parts.append(f"{about['chance']['words']}: {self._cell(about['chance']['value'], math.nan)}")
        parts += [f"Warning: {line}" for line in about.get("warnings", ())]
        return Group(*parts)

    def _scores(self) -> Table:
        shots = list(dict.fromkeys(score.shots for score in self.scores))
        about = self.about
        percent = "" if about["metric"] == "R²" else ", %,"
        table = Table(
            title=f"{about['metric']}{percent} on {about['test']['samples']:,} test samples by {about['unit']}",
            caption=f"mean ± 95% interval over {about['draws']} draws of the labels",
        )
        table.add_column("representation", no_wrap=True)
        table.add_column("read by")
        for count in shots:
            table.add_column("all" if count is None else str(count), justify="right")
        cells: dict[tuple[str, str], dict[int | None, str]] = {}
        for score in self.scores:
            row = cells.setdefault((score.representation, score.protocol), {})
            row[score.shots] = self._cell(score.mean, score.half)
        last = ""
        for (representation, protocol), texts in cells.items():
            if last and representation != last:
                table.add_section()
            shown, last = "" if representation == last else representation, representation
            table.add_row(shown, protocol, *(texts.get(count, "") for count in shots))
        return table

    def _cell(self, mean: float, half: float) -> str:
        if self.about["metric"] == "R²":
            return f"{mean:.2f}" + ("" if math.isnan(half) else f" ±{half:.2f}")
        return f"{100 * mean:.1f}" + ("" if math.isnan(half) else f" ±{100 * half:.1f}")

    def _readings(self) -> Table:
        names = list(dict.fromkeys(name for row in self.readings.values() for name in row))
        table = Table(title="more readings of the test samples")
        for column in ("reading", *self.readings):
            table.add_column(column, justify="left" if column == "reading" else "right")
        for name in names:
            table.add_row(name, *(f"{row[name]:.3g}" if name in row else "" for row in self.readings.values()))
        return table


def _check_about(about: Mapping[str, Any], scores: tuple[Score, ...]) -> None:
    """Raise an error unless what is said about a saved evaluation can be shown."""
    kinds = {"task": str, "draws": int, "metric": str, "unit": str, "test": dict, "labels": dict}
    wrong = [key for key, kind in kinds.items() if not isinstance(about[key], kind)]
    wrong += [key for key in ("data",) if not isinstance(about.get(key, {}), dict)]
    if not isinstance(about["test"]["samples"], int):
        wrong.append("test")
    if "chance" in about:
        _finite(about["chance"]["value"]), str(about["chance"]["words"])
    if not all(isinstance(line, str) for line in about.get("warnings", ())):
        wrong.append("warnings")
    for shots in {score.shots for score in scores}:
        if not 0 < _finite(about["labels"]["all" if shots is None else str(shots)]) < 1e12:
            wrong.append("labels")
    if wrong:
        raise ValueError(f"it has an impossible {wrong[0]}")


def _score(plain: Mapping[str, Any]) -> Score:
    also = {name: (_finite(value["mean"]), _number(value["half"])) for name, value in plain["also"].items()}
    values = tuple(map(_finite, plain["values"]))
    names, shots = (str(plain["representation"]), str(plain["protocol"])), plain["shots"]
    if not values or not (shots is None or (type(shots) is int and shots > 0)):
        raise ValueError(f"it has an impossible score of {names[0]}")
    return Score(*names, shots, _finite(plain["mean"]), _number(plain["half"]), values, also)


def _finite(value: Any) -> float:
    if not isinstance(value, int | float) or not abs(value) < 1e100:
        raise ValueError("it holds what is no number, or one that is not finite")
    return float(value)


def _number(value: Any) -> float:
    return math.nan if value is None else _finite(value)


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value
