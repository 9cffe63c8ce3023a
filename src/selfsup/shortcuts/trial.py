"""The experiment: shortcut probes and a small encoder learn the same task for a while, and solve held-out puzzles."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from selfsup.base.progress import announce
from selfsup.data import make_spec, split_options
from selfsup.encoders import build_encoder
from selfsup.errors import UserError, unknown
from selfsup.evaluation.verdict import FEW_STEPS
from selfsup.shortcuts.clip_cues import CLIP_CUES, ClipProbe, framewise
from selfsup.shortcuts.cues import BLIND, CUES, ShortcutProbe, nothing
from selfsup.shortcuts.result import FOUND, LARGE, Audit, Row, options
from selfsup.shortcuts.sound_cues import SOUND_CUES, SoundProbe
from selfsup.shortcuts.together import MAX_HELD_OUT, Answers, Together, ask, split
from selfsup.source import Source
from selfsup.task import Task
from selfsup.tasks.resolve import resolve_task
from selfsup.train.device import make_fabric
from selfsup.train.fit import fit
from selfsup.train.plan import Plan
from selfsup.train.precision import step_seconds

BATCH, MIN_SAMPLES = 64, 64  # samples per step, and samples that an audit needs
ENCODER, PROBES, COUNTERED = 0.4, 0.4, 0.2  # of the minutes
MARGIN = 1.2  # of the minutes that are proposed: the speed is measured on few steps
KINDS: dict[str, Any] = {  # kind of data -> its cues, the encoder that sees one of them, and what sees nothing
    "image": (CUES, ShortcutProbe, nothing),
    "video": (CLIP_CUES, ClipProbe, framewise(nothing)),
    "audio": (SOUND_CUES, SoundProbe, nothing),
}
LONGER = 2, 10  # times the training that is proposed at least and at most, where a gain was too small


class Learned(NamedTuple):
    """Answers of copies that learned for `steps`; `time_for`: the steps for which there was time, a fraction too."""

    answers: Answers
    steps: int
    time_for: float


class Trial:
    """What all copies of the task have in common. With `minutes`, the steps follow from the measured speed."""

    def __init__(
        self,
        task: str | type[Task],
        source: Source,
        options: Mapping[str, Any],
        *,
        seed: int,
        device: str,
        quiet: bool,
        steps: int | None = None,
        minutes: float | None = None,
    ) -> None:
        about_data, hyperparameters = split_options(source.kind, options)
        self.name, self.task, _, source = resolve_task(task, source, hyperparameters)
        if source.kind not in KINDS:
            raise UserError(
                f"audit looks for cues in data of the kinds {', '.join(KINDS)}, not of the kind {source.kind}"
            )
        self.cues, self.probe, self.blind = KINDS[source.kind]
        self.spec: Any = make_spec(source, self.task.data_defaults, **about_data)
        if len(source) < MIN_SAMPLES:
            raise UserError(
                f"an audit needs at least {MIN_SAMPLES} {self.spec.samples}, and {source.name} has {len(source)}"
            )
        source.conform(self.spec)
        learn, self.held = split(len(source), seed)
        if self.task.keeps_samples:  # each image is a class: other views of the same images are held out
            self.learn_from = self.ask_about = source
        else:
            self.learn_from, self.ask_about = source.take(learn), source.take(self.held)
            self.held = np.arange(len(self.held))
        self.given = dict(hyperparameters)
        self.data, self.seed, self.quiet, self.steps, self.minutes = source.name, seed, quiet, steps, minutes
        self.fabric = make_fabric(device, "float32")

    def run(self, cues: Sequence[str]) -> Audit:
        """Return the result for these cues, for all of the kind of data if none are named."""
        cues = cues or list(self.cues)
        for cue in cues:
            if cue not in self.cues:
                raise unknown("cue", cue, self.cues)
        samples, channels = self.spec.samples, self.spec.channels
        left_out = [cue for cue in cues if self.cues[cue].channels > channels]
        cues = [cue for cue in cues if cue not in left_out]
        if not cues:
            raise UserError(f"none of these cues is in {samples} of {channels} channels: {', '.join(left_out)}")
        small = self.task.small_encoder
        encoder = self.learn({small: lambda: build_encoder(small, self.spec)}, {}, ENCODER)
        try:
            probes = self.learn(self.probes(cues), {}, PROBES)
        except UserError as error:
            raise UserError(
                f"{self.name} cannot train a shortcut probe, an encoder that sees a single cue: {error}"
            ) from error
        rows = [self.row(cue, probes, encoder) for cue in cues]
        counters = {cue: self.counter(cue) for cue in cues}
        wanted = {key: value for row in rows if row.verdict in FOUND for key, value in counters[row.cue].items()}
        if wanted:
            rows = self.countered(rows, wanted, encoder)
        blind = probes.answers.blind
        needed = {cue: self.cues[cue].channels for cue in left_out}
        notes = [f"{cue} is left out: the {samples} have {channels} of {n} channels" for cue, n in needed.items()]
        return Audit(
            self.name, self.data, probes.answers.metric, float(np.mean(blind)), small,
            float(encoder.answers.scores[small].mean()), encoder.answers.gain(small).half, tuple(rows), tuple(notes),
            probes.steps, encoder.steps, len(self.held), samples,
            settled_by=self.settled_by(rows, probes, encoder, any(counters.values())),
        )  # fmt: skip

    def probes(self, cues: Sequence[str]) -> dict[str, Callable[[], nn.Module]]:
        """Return a factory for each shortcut probe, and for the one that sees nothing."""
        seen = {cue: self.cues[cue].see for cue in cues} | {BLIND: self.blind}
        return {name: lambda see=see: self.probe(see, self.spec) for name, see in seen.items()}  # type: ignore[misc]

    def learn(
        self, encoders: Mapping[str, Callable[[], nn.Module]], changed: Mapping[str, Any], fraction: float
    ) -> Learned:
        """Train a copy of the task with each encoder, for a `fraction` of the time, and ask it."""
        _, _, values, _ = resolve_task(self.task, self.learn_from, self.given | dict(changed))
        copies = {}
        for name, build in encoders.items():
            torch.manual_seed(self.seed)
            encoder: Any = build()
            copies[name] = self.task(encoder, **values)
        together = Together(copies)
        source, views = together.samples(self.learn_from), together.views(self.spec)
        size, time_for = min(BATCH, len(source)), float(self.steps or 0)
        if self.minutes is not None:
            timeout = min(5.0, 3 * self.minutes)
            seconds = step_seconds(together, source, views, self.fabric, size, self.seed, timeout)
            time_for = 60 * self.minutes * fraction / seconds
        steps = max(1, int(time_for))
        plan = Plan(steps=steps, batch_size=size, seed=self.seed)
        announce(self.about(list(encoders), changed), self.quiet)
        fit(together, source, views, plan, self.fabric, quiet=self.quiet)
        return Learned(ask(together, self.ask_about, views, self.held, self.fabric.device, self.seed), steps, time_for)

    def about(self, names: Sequence[str], changed: Mapping[str, Any]) -> str:
        """Return what a bar is about: the small encoder, or the cues of the shortcut probes and their options."""
        seen = [name for name in names if name != BLIND]
        if seen == [self.task.small_encoder]:
            return f"{self.name} with {seen[0]}, which sees everything"
        means = f", with {options(changed)}" if changed else ""
        return f"{self.name} with a shortcut probe each for {', '.join(seen)}, and one that sees nothing{means}"

    def row(self, cue: str, probes: Learned, encoder: Learned) -> Row:
        """Judge a shortcut probe by its gain over a blind guess, part by part, beside the encoder's gain."""
        answers = probes.answers
        gain, whole = answers.gain(cue, answers.blind), encoder.answers.gain(self.task.small_encoder, answers.blind)
        fraction = gain.mean / whole.mean if whole.mean > whole.half else None
        if min(probes.steps, encoder.steps) < FEW_STEPS or fraction is None:
            verdict = "undecided"
        elif gain.mean > gain.half:
            verdict = "shortcut" if fraction >= LARGE else "trace"
        else:
            verdict = "no" if gain.mean + gain.half < LARGE * whole.mean else "undecided"
        score, half = float(answers.scores[cue].mean()), answers.gain(cue).half
        counter = self.task.counters.get(cue, {})
        return Row(cue, self.cues[cue].about, score, half, gain.mean, gain.half, fraction, verdict, counter)

    def settled_by(self, rows: Sequence[Row], probes: Learned, encoder: Learned, counters: bool) -> str:
        """Return the option that is enough to decide what is undecided; empty where nothing is.

        Early in training gains grow about as the steps do: it takes so many times more as the encoder's gain falls
        short of its interval or, once it is beyond that, half of it of the gain that a cue may have. `counters`:
        whether some are not on yet, whose probes must be trained in less time.
        """
        both = [row for row in (*rows, *(row.with_counter for row in rows)) if row is not None]
        undecided = [row for row in both if row.verdict == "undecided"]
        if not undecided:
            return ""
        least, rest = min(encoder.time_for, probes.time_for), ""
        times = FEW_STEPS / least
        if self.minutes is not None:
            times = max(times, FEW_STEPS / probes.time_for * (PROBES / COUNTERED if counters else 1))
        if least >= FEW_STEPS:
            whole = encoder.answers.gain(self.task.small_encoder, probes.answers.blind)
            wanted = whole.half
            if whole.mean > wanted:
                wanted = max(row.gain + row.gain_half for row in undecided) / LARGE
            times = max(times, LONGER[0], min(wanted / max(whole.mean, 1e-9), LONGER[1]))
            rest = f", or more {self.spec.samples}" if len(self.held) < MAX_HELD_OUT else ""
        if self.minutes is None:
            return f"--steps {round(times * least)}{rest}"
        return f"--minutes {_rounded_up(MARGIN * times * self.minutes)}{rest}"

    def counter(self, cue: str) -> dict[str, Any]:
        """Return the options that counter the cue and are not on yet."""
        defaults = {name: parameter.default for name, parameter in self.task.hyperparameters().items()}
        now = defaults | self.given
        return {key: value for key, value in self.task.counters.get(cue, {}).items() if now[key] != value}

    def countered(self, rows: Sequence[Row], wanted: Mapping[str, Any], encoder: Learned) -> list[Row]:
        """Return the rows with the scores of the probes that found something once all these options are on together."""
        tried = [row.cue for row in rows if row.verdict in FOUND and self.counter(row.cue)]
        try:
            probes = self.learn(self.probes(tried), wanted, COUNTERED)
        except UserError as error:
            return [replace(row, why_not=str(error)) if row.cue in tried else row for row in rows]
        return [
            replace(row, with_counter=self.row(row.cue, probes, encoder)) if row.cue in tried else row for row in rows
        ]


def _rounded_up(minutes: float) -> str:
    """Return minutes with two digits that count."""
    unit = 10.0 ** (math.floor(math.log10(minutes)) - 1)
    return f"{math.ceil(minutes / unit) * unit:g}"
