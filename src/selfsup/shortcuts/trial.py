"""The experiment: shortcut probes and a small encoder learn the same task for a while, and solve held-out puzzles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from selfsup.data import split_options
from selfsup.data.image import image_spec
from selfsup.encoders import build_encoder
from selfsup.errors import UserError
from selfsup.shortcuts.cues import BLIND, CUES, ShortcutProbe, nothing
from selfsup.shortcuts.result import LARGE, Audit, Row
from selfsup.shortcuts.together import Answers, Together, ask, split
from selfsup.source import Source
from selfsup.task import Task
from selfsup.tasks.resolve import resolve_task
from selfsup.train.device import make_fabric
from selfsup.train.fit import fit
from selfsup.train.plan import Plan
from selfsup.train.precision import step_seconds

BATCH, MIN_SAMPLES = 64, 64  # samples per step, and samples that an audit needs


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
        if self.task.kind not in ("any", "image") or source.kind != "image":
            raise UserError(f"audit looks for cues in images; {source.name} or {self.name} is not for images")
        if len(source) < MIN_SAMPLES:
            raise UserError(f"an audit needs at least {MIN_SAMPLES} images, and {source.name} has {len(source)}")
        self.spec = image_spec(source, **about_data)
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
        """Return the result for these cues."""
        left_out = [cue for cue in cues if CUES[cue].channels > self.spec.channels]
        cues = [cue for cue in cues if cue not in left_out]
        small = self.task.small_encoder
        encoder, encoder_steps = self.learn({small: lambda: build_encoder(small, self.spec)}, {}, 0.4)
        try:
            answers, steps = self.learn(self.probes(cues), {}, 0.4)
        except UserError as error:
            raise UserError(
                f"{self.name} cannot train a shortcut probe, an encoder that sees a single cue: {error}"
            ) from error
        rows = [self.row(cue, answers, encoder) for cue in cues]
        counters = {cue: self.counter(cue) for cue in cues}
        wanted = {key: value for row in rows if row.verdict for key, value in counters[row.cue].items()}
        if wanted:
            rows = self.countered(rows, wanted, encoder)
        chance = float(np.mean(answers.blind))
        notes = [f"{cue} is left out: the images have {self.spec.channels} of {CUES[cue].channels} channels"
                 for cue in left_out]  # fmt: skip
        return Audit(
            self.name, self.data, answers.metric, chance, small, float(encoder.scores[small].mean()),
            encoder.gain(small).half, tuple(rows), tuple(notes), steps, encoder_steps, len(self.held),
        )  # fmt: skip

    def probes(self, cues: Sequence[str]) -> dict[str, Callable[[], nn.Module]]:
        """Return a factory for each shortcut probe, and for the one that sees nothing."""
        seen = {cue: CUES[cue].see for cue in cues} | {BLIND: nothing}
        return {name: lambda see=see: ShortcutProbe(see, self.spec) for name, see in seen.items()}  # type: ignore[misc]

    def learn(
        self, encoders: Mapping[str, Callable[[], nn.Module]], changed: Mapping[str, Any], fraction: float
    ) -> tuple[Answers, int]:
        """Train a copy of the task with each encoder, for a `fraction` of the time; return answers and steps."""
        _, _, values, _ = resolve_task(self.task, self.learn_from, self.given | dict(changed))
        copies = {}
        for name, build in encoders.items():
            torch.manual_seed(self.seed)
            encoder: Any = build()
            copies[name] = self.task(encoder, **values)
        together = Together(copies)
        source, views = together.samples(self.learn_from), together.views(self.spec)
        size, steps = min(BATCH, len(source)), self.steps
        if steps is None:
            assert self.minutes is not None
            timeout = min(5.0, 3 * self.minutes)
            seconds = step_seconds(together, source, views, self.fabric, size, self.seed, timeout)
            steps = max(1, int(60 * self.minutes * fraction / seconds))
        plan = Plan(steps=steps, batch_size=size, seed=self.seed)
        fit(together, source, views, plan, self.fabric, quiet=self.quiet)
        return ask(together, self.ask_about, views, self.held, self.fabric.device, self.seed), steps

    def row(self, cue: str, answers: Answers, encoder: Answers) -> Row:
        """Judge a shortcut probe by its gain over a blind guess, part by part, beside the encoder's gain."""
        gain = answers.gain(cue, answers.blind)
        whole = encoder.gain(self.task.small_encoder, answers.blind)
        fraction = gain.mean / whole.mean if whole.mean > whole.half else None
        found = gain.mean > gain.half
        score, half = float(answers.scores[cue].mean()), answers.gain(cue).half
        verdict = "" if not found else "shortcut" if fraction is None or fraction >= LARGE else "trace"
        return Row(cue, CUES[cue].about, score, half, fraction, verdict, self.task.counters.get(cue, {}))

    def counter(self, cue: str) -> dict[str, Any]:
        """Return the options that counter the cue and are not on yet."""
        defaults = {name: parameter.default for name, parameter in self.task.hyperparameters().items()}
        now = defaults | self.given
        return {key: value for key, value in self.task.counters.get(cue, {}).items() if now[key] != value}

    def countered(self, rows: Sequence[Row], wanted: Mapping[str, Any], encoder: Answers) -> list[Row]:
        """Return the rows with the scores of the probes that found something once all these options are on together."""
        tried = [row.cue for row in rows if row.verdict and self.counter(row.cue)]
        try:
            answers, _ = self.learn(self.probes(tried), wanted, 0.2)
        except UserError as error:
            return [replace(row, why_not=str(error)) if row.cue in tried else row for row in rows]
        return [
            replace(row, with_counter=self.row(row.cue, answers, encoder)) if row.cue in tried else row for row in rows
        ]
