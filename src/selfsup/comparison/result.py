"""The result of a comparison: a table, a verdict in words, and the commands that continue the runs."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table

from selfsup.base.printing import Copied, Printable
from selfsup.comparison.candidates import BASELINES
from selfsup.comparison.clock import parts_of_time
from selfsup.comparison.judging import READER, accuracy, difference
from selfsup.comparison.plan import State
from selfsup.evaluation.verdict import FEW_STEPS

HALF_TRAINED = (
    "At a stage all candidates have completed the same fraction of their run, with the learning rate still high: a "
    "task that begins slowly may have been stopped too early."
)
LABEL_FREE = (
    "RankMe counts directions that carry something, useful or not. It was proposed to compare runs of one method "
    "(Garrido et al., 2023); between tasks it is weak evidence, and it is not an accuracy. So no task was stopped "
    "early: give a few labels (--labels) for an answer."
)


@dataclass(frozen=True, repr=False)
class Comparison(Printable):
    """The candidates in order, each with the scores of its stages; `commands` continue the run of a task."""

    folder: Path
    state: State
    commands: dict[str, str]

    @property
    def labelled(self) -> bool:
        """Whether candidates were ranked by accuracy; else by RankMe."""
        return bool(self.state.asked["labelled"])

    @property
    def measure(self) -> str:
        """What candidates are ranked by."""
        if not self.labelled:
            return "RankMe"
        return f"accuracy, %, with {_labels(self.state.plan['shots'])}, read by {READER}"

    @property
    def finalists(self) -> list[str]:
        """The tasks that have completed their whole run, best first."""
        whole = len(self.state.plan["stages"])
        names = [n for n in self.state.plan["candidates"] if len(self.state.scores.get(n, [])) == whole]
        return sorted(names, key=self._merit, reverse=True)

    @property
    def ranking(self) -> list[str]:
        """Finalists and baselines, best first on the part to choose on; without labels the baselines last."""
        baselines = [name for name in BASELINES if name in self.state.scores]
        if not self.labelled:  # RankMe depends on the width, and pixels have another one
            return [*self.finalists, *baselines]
        return sorted([*self.finalists, *baselines], key=self._merit, reverse=True)

    @property
    def stopped(self) -> list[str]:
        """The tasks that were stopped before the end of their run, those that got furthest first."""
        done = {name: self.state.scores.get(name, []) for name in self.state.plan["candidates"]}
        names = [n for n in done if n not in self.finalists and n not in self.state.failed]
        return sorted(names, key=lambda n: (len(done[n]), self._merit(n)), reverse=True)

    def _merit(self, name: str) -> float:
        return merit(self.state.scores[name][-1])

    def verdict(self) -> list[str]:
        """Return the findings, one or two sentences each."""
        return self._verdict_with_labels() if self.labelled else self._verdict_without_labels()

    def _verdict_with_labels(self) -> list[str]:
        plan, test = self.state.plan, {name: self._test(name) for name in self.ranking}
        task, *others = (name for name in self.ranking if name not in BASELINES)
        baselines = {name: difference(test[task], test[name]) for name in self.ranking if name in BASELINES}
        closest = min(baselines, key=lambda name: baselines[name][0])
        by, half = baselines[closest]
        items = plan["parts"]["test"] or plan["parts"]["select"]
        right = f"with {_labels(plan['shots'])}, {task} ({READER}) is right on "
        right += f"{_percent(accuracy(test[task]))} of {items:,} test samples, "
        rival = f"{closest} ({_percent(accuracy(test[closest]))})"
        apart = f"{_points(abs(by), half)} {'more' if by >= 0 else 'less'} than {rival}"
        if all(gap > half for gap, half in baselines.values()):
            lines = [f"It helps: {right}{apart}, the best of the baselines."]
        elif any(gap + half <= 0 for gap, half in baselines.values()):
            lines = [f"No task helps here: {right}{apart}, a baseline."]
        else:
            lines = [f"It cannot be told with {items:,} test samples whether a task helps: {right}{apart}, a baseline."]
        if others:
            by, half = difference(test[task], test[others[0]])
            second = f"{others[0]} ({_percent(accuracy(test[others[0]]))})"
            if abs(by) > half:
                lines.append(f"{task} is {'ahead of' if by > 0 else 'behind'} {second} by {_points(abs(by), half)}.")
            else:
                lines.append(
                    f"{task} and {second} cannot be told apart with {items:,} test samples: the difference is "
                    f"{_points(by, half)}."
                )
        chosen = f"{task} was chosen on {plan['parts']['select']:,} labelled samples"
        if plan["parts"]["test"]:
            return [*lines, f"{chosen}; the test samples played no part in the choice."]
        return [
            *lines,
            f"{chosen}, all that there are, each measured on in turn ({plan['folds']} folds): because they chose it, "
            "its accuracy is a little too high. --test measures on others.",
        ]

    def _verdict_without_labels(self) -> list[str]:
        best, *_ = self.finalists
        lines = [f"{best} has the highest RankMe of the tasks, {self._merit(best):.1f}."]
        untrained = self._merit("untrained")
        if untrained >= self._merit(best):
            lines.append(f"The untrained encoder has {untrained:.1f}: nothing here shows that training helped.")
        return [*lines, LABEL_FREE]

    def _test(self, name: str) -> dict[str, Any]:
        score = self.state.scores[name][-1]
        test: dict[str, Any] = score.get("test", score["select"])
        return test

    def notes(self) -> list[str]:
        """Return the caveats: how far the numbers can be trusted."""
        asked, plan = self.state.asked, self.state.plan
        lines = [*self._time(), *(self._notes_on_labels() if self.labelled else [])]
        if len(plan["stages"]) > 1:
            lines.append(HALF_TRAINED)
        few = [name for name, planned in plan["candidates"].items() if planned["steps"][-1] < FEW_STEPS]
        if few:
            lines.append(
                f"An encoder learns next to nothing in fewer than {FEW_STEPS} steps: {', '.join(few)}. "
                "Give more --minutes."
            )
        if self.labelled and not asked["scratch"]:
            lines.append("Training from scratch was not compared (--no-scratch).")
        return lines

    def _notes_on_labels(self) -> list[str]:
        asked, plan = self.state.asked, self.state.plan
        parts, trained = plan["parts"], plan.get("scratch", {"draws": 0})["draws"]
        lines = [
            "±: 95% interval over draws of the labels and over the samples that are measured on; not over pretraining "
            f"seeds. Stages are scored on {parts['select']:,} samples to choose by, with {plan['draws']} draws."
        ]
        if plan["shots"] != asked["shots"]:
            lines.append(f"--shots {asked['shots']} became {plan['shots']}: there are too few labels to draw from.")
        if parts["unlabelled"]:
            lines.append(
                f"{parts['unlabelled']:,} of {parts['without a label']:,} samples without a label are in the pool."
            )
        if 0 < trained < plan["draws"]:
            lines.append(f"{trained} of {plan['draws']} draws of training from scratch fit in the minutes.")
        if asked["test"] is None:
            lines.append(
                "Pretraining saw the samples that are measured on, without labels; --test measures on unseen ones."
            )
        if plan["copies"]:
            copies = f"{plan['copies']:,} test samples are copies, or near copies,"
            lines.append(f"{copies} of samples to draw from or to choose by.")
        return lines + list(plan["warnings"])

    def _time(self) -> list[str]:
        """Return what was planned and what was spent, in minutes."""
        plan, state = self.state.plan, self.state
        spent = {what: state.seconds(what) for what in plan["planned"]}
        tasks = len(plan["candidates"])
        lines = [
            f"Minutes planned: {parts_of_time(plan['planned'], tasks)}; spent: {parts_of_time(spent, tasks)}, "
            f"{state.seconds() / 60:.1f} in all."
        ]
        return lines + [
            f"In stage {one['at'][0] + 1} a step took {one['pace']:.2g} times as long as measured: all runs continued "
            f"with {one['factor']:.0%} of the steps that they had left."
            for one in plan["milestones"]
            if one["factor"] < 1
        ]

    def rows(self) -> list[dict[str, Any]]:
        """Return plain values: for each candidate its state, steps, seconds per step and scores."""
        whole = len(self.state.plan["stages"])
        rows = []
        for name in [*self.ranking, *self.stopped, *self.state.failed]:
            planned = self.state.plan["candidates"].get(name, {})
            scores = self.state.scores.get(name, [])
            state = "baseline" if name in BASELINES else "failed" if name in self.state.failed else "whole run"
            if name in self.stopped:
                state = f"stopped after {len(scores)} of {whole} stages"
            steps = planned["steps"][len(scores) - 1] if planned and scores else 0
            seconds = planned.get("seconds_per_step")
            rows.append(
                {
                    "candidate": name,
                    "state": state,
                    "steps": steps,
                    "seconds_per_step": seconds,
                    "scores": _plain(scores),
                }
            )
        return rows

    def as_json(self) -> dict[str, Any]:
        """Return plain values: the ranking, the rows, the verdict and the plan."""
        return {
            "folder": str(self.folder), "asked": self.state.asked, "plan": self.state.plan, "ranking": self.ranking,
            "rows": self.rows(), "failed": self.state.failed, "verdict": self.verdict(), "notes": self.notes(),
            "commands": self.commands, "reader": READER if self.labelled else None, "spent": self.state.spent,
        }  # fmt: skip

    def __rich__(self) -> Group:
        fractions = [stage["fraction"] for stage in self.state.plan["stages"]]
        table = Table(title=f"{self.measure}; {self.state.asked['minutes']:g} minutes in all")
        table.add_column("candidate")
        table.add_column("steps", justify="right")
        measures = [] if self.labelled else ["alpha_req", "effective_dimension", "uniformity"]
        held_out = self.labelled and self.state.plan["parts"]["test"]
        ends = ["test"] if held_out else measures
        for column in [*(f"{part:g} of the run" if part < 1 else "whole run" for part in fractions), *ends]:
            table.add_column(column.replace("_", " "), justify="right")
        table.add_column("")
        for row in self.rows():
            scores = row["scores"]
            cells = [_cell(score) for score in scores]
            if row["state"] == "baseline":
                cells = [""] * (len(fractions) - 1) + cells
            cells += [""] * (len(fractions) - len(cells))
            last = scores[-1] if scores else {}
            cells += [_cell(last, "test")] if held_out else [_number(last.get(measure)) for measure in measures]
            table.add_row(row["candidate"], f"{row['steps']:,}" if row["steps"] else "", *cells, row["state"])
        lines = ["", *self.notes()]
        lines += [f"{name} failed: {reason}" for name, reason in self.state.failed.items()]
        lines += [f"{name} was left out: {reason}" for name, reason in self.state.plan["left_out"].items()]
        lines += ["", f"In {self.folder}/: compare.json, compare.png, and a run folder for each task."]
        parts: list[Any] = [*self.verdict(), "", table, *lines]
        for name, command in self.commands.items():
            parts += [f"{'Continue' if name in self.stopped else 'The run of'} {name}:", Copied(command)]
        return Group(*parts)


def merit(score: dict[str, Any]) -> float:
    """Return the number by which a candidate is ranked."""
    return accuracy(score["select"])[0] if "select" in score else float(score["measures"]["rankme"])


def command(data: str, task: str, options: dict[str, Any], rest: dict[str, Any]) -> str:
    """Return the ordinary command of a candidate's run."""
    words = ["selfsup", "pretrain", data, "--task", task]
    for key, value in {**options, **rest}.items():
        flag = key.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            words += [f"--{flag}", str(value)]
    return shlex.join(words)


def _plain(scores: list[dict[str, Any]]) -> list[dict[str, Any]]:
    plain = []
    for score in scores:
        if "measures" in score:
            plain.append(score["measures"])
            continue
        parts = {}
        for part, found in score.items():
            mean, half = accuracy(found)
            parts[part] = {"mean": mean, "half": half if math.isfinite(half) else None, "values": found["values"]}
        plain.append(parts)
    return plain


def _cell(score: dict[str, Any], part: str = "select") -> str:
    if "rankme" in score:
        return f"{score['rankme']:.1f}"
    if part not in score:
        return ""
    mean, half = score[part]["mean"], score[part]["half"]
    return _percent((mean, math.nan if half is None else half), "")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _labels(shots: int) -> str:
    return f"{shots:,} label{'s' * (shots != 1)} per class"


def _percent(value: tuple[float, float], unit: str = "%") -> str:
    """Return an accuracy; of a single draw the interval is not known."""
    mean, half = value
    return f"{100 * mean:.1f}{unit}" + (f" ±{100 * half:.1f}" if math.isfinite(half) else "")


def _points(by: float, half: float) -> str:
    return _percent((by, half), "") + " points"
