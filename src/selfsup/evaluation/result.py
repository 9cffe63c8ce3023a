"""The result of an evaluation: numbers that print as a table, draw as a curve, and are saved and read again."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table

from selfsup.base.printing import Printable
from selfsup.base.writing import write_atomically
from selfsup.errors import UserError, need
from selfsup.evaluation.labels_saved import Saved, sentence
from selfsup.evaluation.score import Score, count_labels, finite, measured_on, number, plain
from selfsup.evaluation.verdict import PREFERRED, verdict

if TYPE_CHECKING:
    from selfsup.base.figures import Figure


@dataclass(frozen=True, repr=False)
class Evaluation(Printable):
    """Few-label scores beside their baselines; `about` names data, split, seeds, encoder and protocols.

    `saved`: by protocol, how many labels training from scratch needs to be as good; `about["saved against"]` names the
    row. `metrics`: further metrics of the
    test features, by representation and name.
    """

    about: dict[str, Any]
    scores: tuple[Score, ...]
    saved: Mapping[str, tuple[Saved, ...]] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def score(self, representation: str, protocol: str, shots: int | None) -> Score:
        """Return one entry. Raises `KeyError` where there is none."""
        for score in self.scores:
            if (score.representation, score.protocol, score.shots) == (representation, protocol, shots):
                return score
        raise KeyError((representation, protocol, shots))

    @property
    def verdict(self) -> str:
        """Whether the representation helps, in a sentence; empty where it was compared with nothing."""
        return verdict(self.about, self.scores)

    @property
    def headline(self) -> str:
        """The labels saved, in a sentence; empty where from scratch was not trained."""
        order = [*(name for name in PREFERRED if name in self.saved), *self.saved]
        for protocol, entries in ((name, self.saved[name]) for name in order):
            against = str(self.about.get("saved against", {}).get(protocol, "from scratch"))
            return sentence(entries, f"{self.about['task']} ({protocol})", against)
        return ""

    def as_json(self) -> dict[str, Any]:
        """Return plain values; an interval that a single value does not have is null."""
        saved = {protocol: [entry.as_json() for entry in entries] for protocol, entries in self.saved.items()}
        metrics = {name: {key: plain(value) for key, value in row.items()} for name, row in self.metrics.items()}
        scores = [score.as_json() for score in self.scores]
        return {
            "about": self.about, "verdict": self.verdict, "headline": self.headline, "scores": scores, "saved": saved,
            "metrics": metrics,
        }  # fmt: skip

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `as_json` to a file, which `load` reads. Raises `RunFailed` where it cannot be written."""
        write_atomically(Path(path), json.dumps(self.as_json(), indent=2).encode())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Evaluation:
        """Read what `save` wrote. Raises `UserError` for anything else."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            scores = tuple(Score.of(entry) for entry in content["scores"])
            saved = {key: tuple(map(Saved.of, entries)) for key, entries in content["saved"].items()}
            metrics = {
                name: {key: number(value) for key, value in row.items()} for name, row in content["metrics"].items()
            }
            about = content["about"]
            if not scores:
                raise ValueError("it has no scores")
            _check_about(about, scores)
            return cls(about, scores, saved, metrics)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
            raise UserError(f"{path} is not a saved evaluation: {reason}") from None

    def to_pandas(self) -> Any:
        """Return a DataFrame with one row per score; `labels`: the mean number per class, `shots`: missing for all."""
        metric = self.about["metric"]
        rows = [
            {
                "representation": score.representation,
                "protocol": score.protocol,
                "shots": score.shots,
                "labels": self.labels(score.shots),
                metric: score.mean,
                "half": score.half,
                "draws": score.grid.shape[1],
                "seeds": score.seeds,
                **{name: mean for name, (mean, _) in score.also.items()},
            }
            for score in self.scores
        ]
        return need("pandas", "demo").DataFrame(rows).astype({"shots": "Int64"})

    def plot(self) -> Figure:
        """Return a figure of matplotlib: a panel for each evaluator, the curves of all representations, 95% intervals.

        A notebook shows it; a single value, as with all labels, has no interval.
        """
        from selfsup.evaluation.drawing import curves

        return curves(self.about, self.scores)

    def labels(self, shots: int | None) -> float:
        """Return how many labels were drawn, a class where shots are counted per class."""
        return count_labels(self.about, shots)

    def __rich__(self) -> Group:
        about = self.about
        sentences = [line for line in (self.verdict, self.headline) if line]
        parts: list[Any] = [*sentences, ""] if sentences else []
        parts.append(self._scores())
        if "variables" in about:
            parts.append(self._variables())
        if self.metrics:
            parts.append(self._metrics())
        if "chance" in about:
            parts.append(f"{about['chance']['words']}: {self._cell(about['chance']['value'], math.nan)}")
        parts += [f"Warning: {line}" for line in about.get("warnings", ())]
        return Group(*parts)

    def _scores(self) -> Table:
        shots = list(dict.fromkeys(score.shots for score in self.scores))
        about = self.about
        percent = "" if about["metric"] == "R²" else ", %,"
        table = Table(
            title=f"{about['metric']}{percent} on {measured_on(about)} by {about['unit']}",
            caption=f"mean ± 95% interval over {over(about)}",
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

    def variables(self) -> tuple[str, list[str], list[list[str]]]:
        """Return a title, a head and rows: what each reaches in each state variable with the most labels.

        The means of kinds of variables come last. Of masks the variables are classes. No rows for other targets.
        """
        shots = self.scores[-1].shots
        first = self.scores[0].protocol
        columns = {one.representation: one for one in self.scores if (one.protocol, one.shots) == (first, shots)}
        labels = "all labels" if shots is None else f"{shots:,} {self.about['unit']}"
        told, rows = self.about.get("variables", {}), []
        for name, one in (*told.items(), *self.about.get("means", {}).items()):
            chance = [told[variable]["chance"] for variable in one.get("of", [name])]
            values = [sum(chance) / len(chance), *(column.also[name][0] for column in columns.values())]
            cells = [f"{value:.2f}" if one["metric"] == "R²" else f"{100 * value:.1f}%" for value in values]
            rows.append([name, one["metric"], *cells])
        what = "class" if self.about.get("target") == "masks" else "state variable"
        return f"each {what}, with {labels}, read by {first}", [what.split()[-1], "metric", "chance", *columns], rows

    def _variables(self) -> Table:
        title, head, rows = self.variables()
        table = Table(title=title)
        for place, name in enumerate(head):
            table.add_column(name, justify="left" if place < 2 else "right")
        for row in rows:
            table.add_row(*row, end_section=row[0] == list(self.about["variables"])[-1])
        return table

    def _cell(self, mean: float, half: float) -> str:
        if self.about["metric"] == "R²":
            return f"{mean:.2f}" + ("" if math.isnan(half) else f" ±{half:.2f}")
        return f"{100 * mean:.1f}" + ("" if math.isnan(half) else f" ±{100 * half:.1f}")

    def _metrics(self) -> Table:
        names = list(dict.fromkeys(name for row in self.metrics.values() for name in row))
        table = Table(title="further metrics of the test features")
        table.add_column("metric")
        for representation in self.metrics:
            table.add_column(representation, justify="right")
        for name in names:
            table.add_row(name, *(f"{row[name]:.3g}" if name in row else "" for row in self.metrics.values()))
        return table


def over(about: Mapping[str, Any]) -> str:
    """Return in words what the intervals are taken over."""
    folds = about.get("folds", 1)
    draws = -(-about["draws"] // folds)
    seeds = f"{about['seeds']} seeds of pretraining and " if "seeds" in about else ""
    labels = f"{seeds}{draws} draw{'s' * (draws != 1)} of the labels"
    return labels if folds == 1 else f"{folds} folds, each measured on once, and {labels} for each"


def _check_about(about: Mapping[str, Any], scores: tuple[Score, ...]) -> None:
    """Raise an error unless everything about a saved evaluation can be shown."""
    kinds = {"task": str, "draws": int, "metric": str, "unit": str, "test": dict, "labels": dict}
    wrong = [key for key, kind in kinds.items() if not isinstance(about[key], kind)]
    wrong += [key for key in ("data", "saved against") if not isinstance(about.get(key, {}), dict)]
    counts = {"draws": about["draws"], "test": about["test"]["samples"]}
    counts |= {key: about[key] for key in ("steps", "folds", "seeds") if key in about}
    counts |= {"frames": about["test"]["frames"]} if "frames" in about["test"] else {}
    wrong += [key for key, count in counts.items() if type(count) is not int or not 0 < count < 10**12]
    if "chance" in about:
        finite(about["chance"]["value"]), str(about["chance"]["words"])
    if not all(isinstance(line, str) for line in about.get("warnings", ())):
        wrong.append("warnings")
    variables = about.get("variables", {})
    for name, one in (*variables.items(), *about.get("means", {}).items()):
        measured = [variables[variable]["chance"] for variable in one.get("of", [name])]
        if not measured or one["metric"] not in ("R²", "F1", "IoU") or any(name not in score.also for score in scores):
            wrong.append("state variable")
        sum(map(finite, measured))
    for shots in {score.shots for score in scores}:
        if not 0 < finite(about["labels"]["all" if shots is None else str(shots)]) < 1e12:
            wrong.append("labels")
    if wrong:
        raise ValueError(f"it has an impossible {wrong[0]}")
