"""The tournament: candidates run one after the other up to each stage; every score is saved before the next begins."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import nn

from selfsup.base.writing import whole_file
from selfsup.comparison.candidates import Candidate, find_candidates
from selfsup.comparison.judging import ITEMS, Accuracy, LabelFree, draw, split_labels
from selfsup.comparison.plan import open_state, plan_steps
from selfsup.comparison.result import Comparison, command, merit
from selfsup.comparison.speed import Trial, speeds
from selfsup.data import make_spec
from selfsup.data.labels import LabelsGiven, noted_labels
from selfsup.data.open import open_data
from selfsup.encoders import build_encoder
from selfsup.errors import RunFailed, UserError
from selfsup.evaluation.baselines import baseline
from selfsup.evaluation.duplicates import near_copies, same_bytes
from selfsup.evaluation.problems import contents
from selfsup.pretraining import build, resolve
from selfsup.pretraining import run as pretrain
from selfsup.run import versions
from selfsup.source import Source
from selfsup.task import Task
from selfsup.tasks.resolve import resolve_task
from selfsup.tasks.semi.supervised import Supervised
from selfsup.train.device import make_fabric
from selfsup.train.plan import BATCH
from selfsup.train.precision import resolve_precision
from selfsup.train.signals import Interrupted


class Tournament:
    """A comparison in progress. Opening it makes the plan, unless its folder holds one already.

    Raises `UserError` for bad arguments, before anything is written into a new folder.
    """

    def __init__(
        self,
        data: Any,
        folder: Path,
        options: dict[str, Any],
        *,
        labels: LabelsGiven | None,
        test: Any,
        test_labels: LabelsGiven | None,
        tasks: str | Sequence[str | type[Task]],
        minutes: float,
        shots: int,
        draws: int,
        scratch: bool,
        precision: str,
        device: str,
        quiet: bool,
    ) -> None:
        self.data, self.folder, self.options, self.device, self.quiet = data, folder, options, device, quiet
        self.source = open_data(data)
        if options["batch_size"] is None:
            options["batch_size"] = min(BATCH, len(self.source))
        elif options["batch_size"] > len(self.source):
            raise UserError(f"--batch-size must be at most {len(self.source)}, not {options['batch_size']}")
        labelled = open_data(data, labels)
        has_labels = labelled.labels is not None and bool((labelled.labels.ids >= 0).any())
        if labels is not None and not has_labels:
            raise UserError(f"{labels} has no label for any sample of {labelled.name}")
        if test is not None and not has_labels:
            raise UserError(f"--test is of no use without labels of {labelled.name}: give --labels")
        candidates, left_out = find_candidates(tasks, self.source)
        self.fabric = make_fabric(device, precision)
        if options["encoder"] is None and candidates:
            options["encoder"] = next(iter(candidates.values())).task_class.default_encoder
        self.spec = spec = make_spec(self.source, **options["data"])
        held_out = _open_test(test, test_labels)
        if held_out is not None:
            held_out.conform(spec)
        names = tasks if isinstance(tasks, str) else [t if isinstance(t, str) else t.__name__ for t in tasks]
        asked = {
            "data": _about(labelled, labels), "test": held_out and _about(held_out, test_labels),
            "labelled": has_labels, "scratch": scratch,
            "tasks": names, "minutes": minutes, "shots": shots, "draws": draws,
            "precision": precision, **options,
        }  # fmt: skip
        self.judge: Accuracy | LabelFree
        if has_labels:
            parts = split_labels(labelled, held_out, options["seed"])
            self.judge = Accuracy(parts, draw(parts.pool, shots, draws, options["seed"]), spec, self.fabric)
        else:
            some = np.sort(np.random.default_rng(options["seed"]).permutation(len(self.source))[:ITEMS])
            self.judge = LabelFree(self.source.take(some), spec, self.fabric)
        self.state = open_state(folder / "compare.json", asked)
        if not self.state.plan:
            self._plan(candidates, left_out, precision)
        self.candidates = {name: candidates[name] for name in self.state.plan["candidates"] if name in candidates}

    @property
    def result(self) -> Comparison:
        """The results so far."""
        return Comparison(self.folder, self.state, self._commands())

    def run(self) -> None:
        """Run everything that is left, baselines included."""
        torch.manual_seed(self.options["seed"])  # the weights with which the candidates begin
        untrained: nn.Module = build_encoder(self.options["encoder"], self.spec)
        for name in (baseline(self.spec.kind).NAME, "untrained"):
            if name not in self.state.scores:
                raw = name != "untrained"
                score = self.judge.score_data() if raw else self.judge.score(untrained, ("select", "test"))
                self.state.scores[name] = [score]
                self.state.save()
        for stage in range(len(self.state.plan["stages"])):
            running = self._running(stage)
            for place, name in enumerate(running):
                if name not in self.state.failed and len(self.state.scores.get(name, [])) == stage:
                    self._advance(name, stage, f"{place + 1} of {len(running)}", running[place:])
        if isinstance(self.judge, Accuracy) and self.state.asked["scratch"]:
            self._from_scratch(self.judge)

    def finish(self) -> Comparison:
        """Draw the image and return the result."""
        from selfsup.comparison.drawing import draw_comparison

        result = self.result
        path = self.folder / "compare.png"
        with whole_file(path) as file:
            draw_comparison(result).savefig(file, format="png", dpi=150)
        return result

    def _plan(self, candidates: dict[str, Candidate], left_out: dict[str, str], precision: str) -> None:
        """Measure the speed of every candidate and fix its steps."""
        trials = {}
        for name, candidate in candidates.items():
            try:
                _, task_class, values, source = resolve_task(candidate.task, self.source, candidate.options)
                torch.manual_seed(self.options["seed"])
                task = task_class(build_encoder(self.options["encoder"], self.spec), **values)
                trials[name] = Trial(task, task.samples(source), task.views(self.spec))
            except Exception as error:  # whatever a task does wrong, the others can still be compared
                left_out[name] = _reason(error)
        self._say(f"measuring the speed of {', '.join(trials)}")
        seconds, failed = speeds(
            trials, self.fabric, self.options["batch_size"], self.options["seed"], 60 * self.state.asked["minutes"]
        )
        left_out |= {name: _reason(error) for name, error in failed.items()}
        if not seconds:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
            raise UserError(f"no task of --tasks can run on {self.source.name}: {reasons}")
        judge = self.judge if isinstance(self.judge, Accuracy) else None
        plan = plan_steps(seconds, self.state.asked["minutes"], halving=judge is not None)
        self.state.plan = {
            **plan,
            "left_out": left_out | plan["left_out"],
            "precision": resolve_precision(precision, self.fabric.device),
            "parts": {name: len(part) for name, part in judge.parts._asdict().items()} if judge else {},
            "copies": _copies(judge) if judge else 0,
            "versions": versions(),
        }
        self.state.save()

    def _running(self, stage: int) -> list[str]:
        """Return the candidates that run at a stage: the better ones of the stage before."""
        if stage == 0:
            return list(self.candidates)
        done = {n: scores for n, scores in self.state.scores.items() if n in self.candidates and len(scores) >= stage}
        best = sorted(done, key=lambda name: merit(done[name][stage - 1]), reverse=True)
        return best[: self.state.plan["stages"][stage]["candidates"]]

    def _advance(self, name: str, stage: int, place: str, running: Sequence[str]) -> None:
        candidate, steps = self.candidates[name], self.state.plan["candidates"][name]["steps"]
        stages = self.state.plan["stages"]
        self._say(
            f"stage {stage + 1} of {len(stages)} · {name} ({place}) · to step {steps[stage]:,} of {steps[-1]:,} · "
            f"about {self._minutes_left(stage, len(running)):.1f} minutes of training left in all"
        )
        try:
            given = self.options["data"] | candidate.options
            built = build(
                resolve(candidate.task, self.source, given, encoder=self.options["encoder"]), device=self.device,
                precision=self.state.plan["precision"], batch_size=self.options["batch_size"],
                seed=self.options["seed"],
            )  # fmt: skip
            folder, budget = self.folder / candidate.folder, {"steps": steps[-1]}
            run = pretrain(built, folder, budget, {}, until=steps[stage], quiet=self.quiet)
            task, step = run.load_task(candidate.task_class)
            if step != steps[stage]:
                raise UserError(f"its run was continued to step {step:,}, beyond the {steps[stage]:,} of the plan")
            last = stage + 1 == len(stages)
            trained: Any = task.representation()
            score = self.judge.score(trained, ("select", "test") if last else ("select",))
            self.state.scores.setdefault(name, []).append(score)
        except Interrupted:
            raise
        except Exception as error:  # whatever a task does wrong, the others continue
            self.state.failed[name] = _reason(error)
            self._say(f"{name} failed: {self.state.failed[name]}")
        self.state.save()

    def _minutes_left(self, stage: int, running: int) -> float:
        before, left = 0.0, 0.0
        for number, planned in enumerate(self.state.plan["stages"]):
            if number >= stage:
                left += (running if number == stage else planned["candidates"]) * (planned["fraction"] - before)
            before = planned["fraction"]
        return left * float(self.state.plan["minutes_each"])

    def _from_scratch(self, judge: Accuracy) -> None:
        """Train on the labels alone, one draw at a time; a draw that has its score is not trained again."""
        options = self._shared_options()

        def make() -> Task:
            return Supervised(build_encoder(self.options["encoder"], self.spec), num_classes=judge.classes, **options)

        found = self.state.scores.setdefault("from scratch", [{}])[0]
        draws = len(judge.draws)
        for number in range(len(found.get("select", {"values": []})["values"]), draws):
            self._say(f"from scratch · draw {number + 1} of {draws}")
            try:
                right = judge.scratch(make, number, self.options["seed"])
            except Interrupted as stop:
                raise Interrupted(stop.number, number, draws, self.folder) from None
            for part, items in right.items():
                kept = found.setdefault(part, {"values": [], "hits": [0] * len(items)})
                kept["values"].append(float(items.mean()))
                kept["hits"] = (np.array(kept["hits"]) + items).tolist()
            self.state.save()

    def _shared_options(self) -> dict[str, Any]:
        """Return the options of training from scratch on which all candidates agree: the same views for all."""
        values: dict[str, list[Any]] = {}
        for candidate in self.candidates.values():
            for key, parameter in candidate.task_class.hyperparameters().items():
                values.setdefault(key, []).append(candidate.options.get(key, parameter.default))
        shared = Supervised.hyperparameters().keys() & values.keys() - {"num_classes"}
        return {
            key: values[key][0]
            for key in sorted(shared)
            if all(value == values[key][0] for value in values[key]) and values[key][0] is not inspect.Parameter.empty
        }

    def _commands(self) -> dict[str, str]:
        commands = {}
        for name, candidate in self.candidates.items():
            if not isinstance(self.data, str | os.PathLike) or not isinstance(candidate.task, str):
                continue
            about_data = self.options["data"]
            rest = (
                {key: value for key, value in self.options.items() if key != "data"}
                | about_data
                | {
                    "steps": self.state.plan["candidates"][name]["steps"][-1],
                    "precision": self.state.plan["precision"],
                    "out": self.folder / candidate.folder,
                }
            )
            commands[name] = command(os.fspath(self.data), candidate.task, candidate.options, rest)
        return commands

    def _say(self, text: str) -> None:
        if not self.quiet:
            Console(stderr=True, markup=False, highlight=False).print(text, soft_wrap=True)


def _reason(error: Exception) -> str:
    name = "" if isinstance(error, UserError | RunFailed) else f"{type(error).__name__}: "
    return name + " ".join(str(error).split())


def _open_test(test: Any, labels: LabelsGiven | None) -> Source | None:
    if test is None:
        return None
    opened = open_data(test, labels)
    if opened.labels is None or not (opened.labels.ids >= 0).any():
        raise UserError(f"{opened.name} has no labels to measure with: give --test-labels")
    return opened.take(np.flatnonzero(opened.labels.ids >= 0))


def _about(source: Source, labels: LabelsGiven | None) -> dict[str, Any]:
    return {
        "name": source.name,
        "samples": len(source),
        "fingerprint": source.fingerprint(),
        "labels": noted_labels(labels),
    }


def _copies(judge: Accuracy) -> int:
    """Return how many samples of the test part are also in the other parts, as they are or saved again."""
    parts = judge.parts
    same = same_bytes(chain(contents(parts.pool), contents(parts.select)), contents(parts.test))[:, 0].tolist()
    own = baseline(judge.spec.kind)
    if judge.spec.kind != "image":
        return len(same)
    (_, pool), (_, select), (numbers, test) = own.features(tuple(parts), judge.spec, True)
    images = own.images(np.concatenate([pool, select]), test, judge.spec)
    assert images is not None
    return len({*same, *numbers[near_copies(*images)[:, 0]].tolist()})
