"""The tournament: candidates run one after the other up to each stage; every score is saved before the next begins."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from selfsup.base.progress import announce
from selfsup.base.writing import whole_file
from selfsup.comparison.candidates import find_candidates
from selfsup.comparison.clock import MEASURING, SCRATCH, TRAINED, ahead, check_time, parts_of_time
from selfsup.comparison.judging import ITEMS, Accuracy, LabelFree, draw, score, split_labels
from selfsup.comparison.plan import now, open_state, plan_steps
from selfsup.comparison.result import Comparison, command, merit
from selfsup.comparison.speed import Trial, speeds
from selfsup.data import make_spec
from selfsup.data.labels import LabelsGiven, noted_labels
from selfsup.data.open import open_data
from selfsup.encoders import build_encoder
from selfsup.errors import RunFailed, UserError
from selfsup.evaluation.baselines import baseline
from selfsup.evaluation.few_labels import training_steps
from selfsup.evaluation.parts import labels_of
from selfsup.evaluation.problems import about_classes
from selfsup.pretraining import run as pretrain
from selfsup.recipe import replan
from selfsup.request import build, resolve
from selfsup.run import versions
from selfsup.source import Source
from selfsup.task import Task
from selfsup.tasks.resolve import resolve_task
from selfsup.tasks.semi.supervised import Supervised
from selfsup.train.device import make_fabric
from selfsup.train.plan import default_batch
from selfsup.train.precision import resolve_precision
from selfsup.train.recalibrate import recalibrate
from selfsup.train.signals import Interrupted

LEGS = (0.5, 1.0)  # of the last stage, where the clock is looked at half-way


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
        self.began, self.minutes, self.device, self.quiet = now(), minutes, device, quiet
        self.data, self.folder, self.options = data, folder, options
        self.source = open_data(data)
        labelled = open_data(data, labels)
        has_labels = labelled.labels is not None and bool((labelled.labels.ids >= 0).any())
        if labels is not None and not has_labels:
            raise UserError(f"{labels} has no label for any sample of {labelled.name}")
        if test is not None and not has_labels:
            raise UserError(f"--test is of no use without labels of {labelled.name}: give --labels")
        candidates, left_out = find_candidates(tasks, self.source)
        self.fabric = make_fabric(device, precision)
        if options["encoder"] is None and candidates:
            options["encoder"] = next(iter(candidates.values())).task_class.encoder_for(self.source.kind)
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
            drawn, self.shots = draw(parts, shots, draws, options["seed"])
            self.judge = Accuracy(parts, drawn, spec, self.fabric)
        else:
            some = np.sort(np.random.default_rng(options["seed"]).permutation(len(self.source))[:ITEMS])
            self.judge = LabelFree(self.source.take(some), spec, self.fabric)
        self.state = open_state(folder / "compare.json", asked)
        self.found = candidates
        if not self.state.plan:
            self._plan(left_out, precision)
        self.candidates = {name: candidates[name] for name in self.state.plan["candidates"] if name in candidates}

    @property
    def result(self) -> Comparison:
        """The results so far."""
        return Comparison(self.folder, self.state, self._commands())

    def run(self) -> None:
        """Run everything that is left, baselines included."""
        plan = self.state.plan
        if not self.state.seconds("training"):
            self._say(f"about {self.minutes:g} minutes: {parts_of_time(plan['planned'], len(plan['candidates']))}")
        try:
            for stage in range(len(plan["stages"])):
                running = self._running(stage)
                legs = LEGS if stage + 1 == len(plan["stages"]) else LEGS[-1:]
                for leg in legs:
                    if stage or leg != legs[0]:  # something was trained
                        check_time(self.state, stage, leg, running)
                    for place, name in enumerate(running):
                        if name not in self.state.failed and len(self.state.scores.get(name, [])) == stage:
                            self._advance(name, stage, leg, f"{place + 1} of {len(running)}")
            if isinstance(self.judge, Accuracy) and "scratch" in plan:
                self._from_scratch(self.judge)
        except Interrupted:
            self.state.save()  # the time that was spent
            raise

    def finish(self) -> Comparison:
        """Draw the image and return the result."""
        from selfsup.comparison.drawing import draw_comparison

        result = self.result
        path = self.folder / "compare.png"
        with whole_file(path) as file:
            draw_comparison(result).savefig(file, format="png", dpi=150)
        return result

    def _plan(self, left_out: dict[str, str], precision: str) -> None:
        """Measure the speed of every candidate and of scoring, and fix all steps."""
        judge, state = self.judge if isinstance(self.judge, Accuracy) else None, self.state
        trials = {}
        for name, candidate in self.found.items():
            try:
                _, task_class, values, source = resolve_task(candidate.task, self.source, candidate.options)
                torch.manual_seed(self.options["seed"])
                task = task_class(build_encoder(self.options["encoder"], self.spec), **values)
                samples = task.samples(source)
                batch = self.options["batch_size"] or default_batch(task_class, len(samples))
                if batch > len(samples):
                    raise UserError(f"--batch-size must be at most {len(samples)}, not {batch}")
                trials[name] = Trial(task, samples, task.views(self.spec), batch)
            except Exception as error:  # whatever a task does wrong, the others can still be compared
                left_out[name] = _reason(error)
        if judge and state.asked["scratch"]:
            task, few = self._supervised(judge), judge.parts.data.take(judge.draws[0].numbers)
            steps, batch = training_steps(len(few))
            trials[SCRATCH] = Trial(task, few, task.views(self.spec), batch)
        seconds = MEASURING * 60 * self.minutes
        names = ", ".join(trials)
        self._say(f"about {self.minutes:g} minutes, at most {seconds / 60:.2g} of them to measure speeds: {names}")
        state.spent.append({"what": "measuring", "of": "opening the data", "seconds": round(now() - self.began, 3)})
        with state.timed("measuring", of="speeds"):
            measured, failed = speeds(trials, self.fabric, self.options["seed"], seconds)
        left_out |= {name: _reason(error) for name, error in failed.items()}
        each = measured.pop(SCRATCH, None)
        if not measured:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
            raise UserError(f"no task of --tasks can run on {self.source.name}: {reasons}")
        plan_steps(measured, self.minutes, judge is not None)  # too few minutes are refused before anything is scored
        about, scoring, extraction = self._score_baselines()
        scratch: dict[str, Any] = {}
        if judge and each is not None:
            each = steps * each + extraction * judge.scratch_samples
            fit = int(TRAINED * 60 * self.minutes / max(each, 1e-9))
            if fit:
                scratch = {"scratch": {"draws": min(fit, len(judge.draws)), "seconds": each}}
            else:
                left_out[SCRATCH] = (
                    f"one draw of the labels takes {each / 60:.2g} minutes, and at most a fifth of --minutes is for "
                    f"it; give at least {each / TRAINED / 60:.2g}"
                )
        other = state.seconds() + sum(one["draws"] * one["seconds"] for one in scratch.values())
        plan = plan_steps(measured, self.minutes, judge is not None, scoring, other)
        left_out |= plan["left_out"]
        resolved = resolve_precision(precision, self.fabric.device)
        more = {
            "scoring": scoring,
            "left_out": left_out,
            "precision": resolved,
            "milestones": [],
            "versions": versions(),
        }
        state.plan = plan | scratch | about | more
        planned = ahead(state, 0, list(plan["candidates"]))
        planned["scoring"] += state.seconds("scoring")
        state.plan["planned"] = {"measuring": state.seconds("measuring"), **planned}
        state.save()

    def _score_baselines(self) -> tuple[dict[str, Any], float, float]:
        """Score the samples themselves and the untrained encoder; return what compare.json tells of the labels.

        And how many seconds it took to score the latter, and how many of them to extract its features.
        """
        own, judge, state, about = baseline(self.spec.kind), self.judge, self.state, dict[str, Any]()
        with state.timed("scoring", of=own.NAME):
            raw = judge.data_features()
            state.scores[own.NAME] = [judge.read(raw, own.STANDARDISED)]
            if isinstance(judge, Accuracy):
                about = self._about_labels(judge) | {"copies": judge.copies(raw)}
        torch.manual_seed(self.options["seed"])  # the weights with which the candidates begin
        untrained: Any = build_encoder(self.options["encoder"], self.spec)
        with state.timed("scoring", of="untrained", part="features"):
            self._recalibrate(untrained)
            features = judge.features(untrained)
        with state.timed("scoring", of="untrained", part="reading"):
            state.scores["untrained"] = [judge.read(features)]
        extraction, reading = (float(one["seconds"]) for one in state.spent[-2:])
        return about, extraction + reading, extraction

    def _recalibrate(self, encoder: nn.Module) -> None:
        """Take BatchNorm's statistics as a finished run does, of the untrained encoder too."""
        device = self.judge.fabric.device
        recalibrate(encoder, self.source, self.spec, seed=self.options["seed"], device=device)

    def _about_labels(self, judge: Accuracy) -> dict[str, Any]:
        parts, (first, *_) = judge.parts, judge.parts.folds
        ids = labels_of(parts.data).ids
        drawn_from = labels_of(parts.data.take(first.pool if len(first.test) else np.flatnonzero(ids >= 0)))
        measured = parts.test or (parts.data.take(first.test) if len(first.test) else None)
        return {
            "shots": self.shots,
            "draws": len(judge.draws),
            "folds": len(parts.folds),
            "parts": parts.counts | {"without a label": int((ids < 0).sum())},
            "warnings": about_classes(drawn_from, labels_of(measured) if measured else drawn_from, [self.shots]),
        }

    def _running(self, stage: int) -> list[str]:
        """Return the candidates that run at a stage: the better ones of the stage before."""
        if stage == 0:
            return list(self.candidates)
        done = {n: scores for n, scores in self.state.scores.items() if n in self.candidates and len(scores) >= stage}
        best = sorted(done, key=lambda name: merit(done[name][stage - 1]), reverse=True)
        return best[: self.state.plan["stages"][stage]["candidates"]]

    def _advance(self, name: str, stage: int, leg: float, place: str) -> None:
        """Train a candidate up to the end of a leg, and score it at the end of the stage."""
        candidate, entry = self.candidates[name], self.state.plan["candidates"][name]
        stages, last = self.state.plan["stages"], stage + 1 == len(self.state.plan["stages"])
        until = self._end(name, stage, leg)
        left = sum(ahead(self.state, stage, self._running(stage)).values()) / 60
        self._say(
            f"stage {stage + 1} of {len(stages)} · {name} ({place}) · to step {until:,} of {entry['steps'][-1]:,} · "
            f"about {left:.1f} minutes left in all"
        )
        try:
            given = self.options["data"] | candidate.options
            with self.state.timed("training", of=name, stage=stage + 1):
                built = build(
                    resolve(candidate.task, self.source, given, encoder=self.options["encoder"]), device=self.device,
                    precision=self.state.plan["precision"], batch_size=self.options["batch_size"],
                    seed=self.options["seed"],
                )  # fmt: skip
                folder, budget = self.folder / candidate.folder, {"steps": entry["whole"]}
                if "milestones" in entry:
                    replan(folder, entry["steps"][-1], entry["milestones"])
                run = pretrain(built, folder, budget, {}, until=until, quiet=self.quiet)
            entry["done"] = max(until, entry.get("done", 0))
            if leg == LEGS[-1]:
                task, step = run.load_task(candidate.task_class)
                if step != until:
                    raise UserError(f"its run was continued to step {step:,}, beyond the {until:,} of the plan")
                with self.state.timed("scoring", of=name, stage=stage + 1):
                    trained: Any = task.representation()
                    self._recalibrate(trained)
                    score = self.judge.read(self.judge.features(trained, last))
                self.state.scores.setdefault(name, []).append(score)
        except Interrupted:
            raise
        except Exception as error:  # whatever a task does wrong, the others continue
            self.state.failed[name] = _reason(error)
            self._say(f"{name} failed: {self.state.failed[name]}")
        self.state.save()

    def _end(self, name: str, stage: int, leg: float) -> int:
        steps = self.state.plan["candidates"][name]["steps"]
        before = steps[stage - 1] if stage else 0
        return int(before + max(1, round(leg * (steps[stage] - before))))

    def _from_scratch(self, judge: Accuracy) -> None:
        """Train on the labels alone, one draw at a time; a draw that has its score is not trained again."""
        planned = self.state.plan["scratch"]
        kept = self.state.scores.get(SCRATCH, [{}])[0].get("select", {"right": []})["right"]
        if not kept and planned["draws"]:
            left = 60 * self.minutes - self.state.seconds()
            planned["draws"] = max(1, min(planned["draws"], int(left / max(planned["seconds"], 1e-9))))
            self.state.save()
        for number in range(len(kept), planned["draws"]):
            self._say(f"{SCRATCH} · draw {number + 1} of {planned['draws']}")
            try:
                with self.state.timed(SCRATCH, draw=number + 1):
                    right = judge.scratch(lambda: self._supervised(judge), number, self.options["seed"])
            except Interrupted as stop:
                raise Interrupted(stop.number, number, planned["draws"], self.folder) from None
            (before,) = self.state.scores.setdefault(SCRATCH, [{}])
            for part, marks in right.items():
                before[part] = score([*before.get(part, {"right": []})["right"], marks])
            self.state.save()

    def _supervised(self, judge: Accuracy) -> Task:
        encoder = build_encoder(self.options["encoder"], self.spec)
        return Supervised(encoder, num_classes=judge.classes, **self._shared_options())

    def _shared_options(self) -> dict[str, Any]:
        """Return the options of training from scratch on which all candidates agree: the same views for all."""
        values: dict[str, list[Any]] = {}
        for candidate in self.found.values():
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
                    "steps": self.state.plan["candidates"][name]["whole"],
                    "precision": self.state.plan["precision"],
                    "out": self.folder / candidate.folder,
                }
            )
            commands[name] = command(os.fspath(self.data), candidate.task, candidate.options, rest)
        return commands

    def _say(self, text: str) -> None:
        announce(text, self.quiet)


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
