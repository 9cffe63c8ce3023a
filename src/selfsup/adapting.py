"""Continued pretraining that does no harm: in stages, each held against the frozen start, and the best one is kept."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import nn

from selfsup.base.notes import say
from selfsup.base.printing import Copied, Printable
from selfsup.base.writing import write_atomically
from selfsup.errors import RunFailed, UserError
from selfsup.evaluation.features import extract
from selfsup.evaluation.probe import fit_probe, stratified_folds
from selfsup.evaluation.propagate import build_graph, spread_labels
from selfsup.nn.lora import merged_state
from selfsup.pretraining import read_out, run
from selfsup.request import Built
from selfsup.run import START, Run
from selfsup.source import Source
from selfsup.train.checkpoint import load_tensors, save_tensors

STAGES = (0.125, 0.25, 0.5, 0.75, 1.0)  # of the steps, after which the encoder is looked at: early, when harm is done
SAMPLES = 5000  # that are looked at, at most, the labelled ones among them
REPEATS, FOLDS = 4, 5  # of cross-validation on the labels
PENALTY = 0.1  # of the linear probe: both encoders are read alike, and nothing is chosen
CLUSTERS, MEMBERS = 50, 20  # of the frozen features: at most so many, of so many samples each on average
BEST = "checkpoint/best.safetensors"  # in the run folder: of the best stage so far
KEPT = 0.5  # of what the frozen features tell about their own clusters must be left
UNSEEN = 0.98  # the same where no label tells whether a change is a gain; at 0.955 emoji lost four points


@dataclass(frozen=True)
class Stage:
    """What was found after some steps; step 0 is the frozen start.

    `structure`: how many samples' cluster of the *frozen* features is told by their neighbours, beside the same of the
    start and chance (no label is read). `accuracy`, on held-out labels, `gain` over the start and the `half` width of
    its 95% interval, over the labelled samples: None without enough labels.
    """

    step: int
    structure: float
    accuracy: float | None = None
    gain: float | None = None
    half: float | None = None
    alarm: str = ""


@dataclass(frozen=True, repr=False)
class Adapted(Printable):
    """The run, every stage, and the step whose encoder was kept: 0 is the frozen start."""

    run: Run
    stages: tuple[Stage, ...]
    kept: int
    labelled: int

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain values."""
        stages = [asdict(stage) for stage in self.stages]
        return {
            "run": self.run.as_json(), "stages": stages, "kept": self.kept, "labelled": self.labelled,
            "verdict": self.verdict(),
        }  # fmt: skip

    def verdict(self) -> str:
        """Return in one sentence whether adapting helped, on what evidence."""
        best, last = next(stage for stage in self.stages if stage.step == self.kept), self.stages[-1]
        alarm = f" {last.alarm}" if last.alarm else ""
        if not self.labelled:
            if not self.kept:
                return f"Keep the frozen one.{alarm}"
            return (
                f"No harm was seen up to step {self.kept:,}, whose encoder is kept; whether it helps, only labels can "
                f"tell (--labels).{alarm}"
            )
        on = f"by cross-validation on the {self.labelled:,} labels given"
        if not self.kept:
            return f"Keep the frozen one: no stage was better {on}.{alarm}"
        assert best.gain is not None
        assert best.half is not None
        gain = f"{100 * best.gain:.1f} ± {100 * best.half:.1f} points"
        if best.gain > best.half:
            return f"Adapting helped by {gain} {on}; the encoder of step {self.kept:,} is kept.{alarm}"
        return (
            f"It cannot be told whether adapting helped: {gain} {on}; the encoder of step {self.kept:,} is kept, and "
            f"more labels would settle it.{alarm}"
        )

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.table import Table

        table = Table("step", "frozen structure", "accuracy", "gain", title="held against the frozen start")
        for stage in self.stages:
            gain = (
                "" if stage.gain is None or stage.half is None else f"{100 * stage.gain:+.1f} ±{100 * stage.half:.1f}"
            )
            accuracy = "" if stage.accuracy is None else f"{100 * stage.accuracy:.1f}"
            mark = " (kept)" if stage.step == self.kept else ""
            table.add_row(f"{stage.step:,}{mark}", f"{100 * stage.structure:.1f}", accuracy, gain)
        more = "" if self.labelled else " (--labels FEW.csv lets labels choose the stage)"
        return Group(
            self.verdict(), "", table,
            f"\n{self.run.folder}/: encoder.safetensors (kept), start.safetensors, adapt.json\n"
            f"Beside the frozen start on other labels{more}:",
            Copied(shlex.join(["selfsup", "evaluate", str(self.run.folder), "--data", "LABELLED"])),
        )  # fmt: skip


def adapt(
    make: Callable[[], Built],
    folder: Path,
    budget: dict[str, float],
    given: dict[str, Any],
    *,
    micro_batch: int | None = None,
    workers: int | None = None,
    loggers: Sequence[str] | None = None,
    quiet: bool = False,
) -> Adapted:
    """Train in stages (`STAGES`), look at the encoder after each, stop at an alarm, and keep the best encoder.

    The best one is that of the highest accuracy on held-out labels, the frozen start among them; without labels it is
    the last one without an alarm. An alarm: less than half of the frozen features' own structure is left (without
    labels less than 98%), or the accuracy is below that of the start beyond its interval. Everything is a function of
    the seed and the steps; killed anywhere, the same call ends with the same encoder.

    Args:
        make: builds what is trained, anew for each stage; its source's labels, where it has some, are the few.
        folder: of the run.
        budget: one entry, steps or epochs.
        given: options of the plan.
        micro_batch: see `run`.
        workers: see `run`.
        loggers: see `run`.
        quiet: no progress.

    Raises:
        UserError: an encoder that does not begin trained, or a task that keeps more than the encoder.
    """
    built = make()
    if not built.keeps_encoder:
        raise UserError(
            f"adapt keeps the better of two encoders, and what {built.asked.name} keeps is not {built.asked.encoder} "
            "as it began: take another --task, or pretrain"
        )
    if not built.asked.begins_trained:
        raise UserError("adapt goes on from trained weights: give an --encoder of timm (--weights FILE) or --init RUN")
    notes = folder / "adapt.json"
    told: dict[str, Any] = json.loads(notes.read_text()) if notes.exists() else {}
    more: dict[str, Any] = {"micro_batch": micro_batch, "workers": workers, "loggers": loggers, "quiet": quiet}
    if told.get("ended"):  # checked against the recipe as any finished run
        return _told(run(built, folder, budget, given, **more), told)
    trained = run(built, folder, budget, given, until=1, **more)  # checks all that can be wrong
    guard = Guard(built, folder, quiet)
    found = [Stage(**one) for one in told.get("stages", ())] or [guard.first]
    steps = int(trained.recipe["plan"]["steps"])
    for step in sorted({max(1, round(part * steps)) for part in STAGES}):
        if step <= found[-1].step or found[-1].alarm:
            continue
        trained = run(make(), folder, budget, given, until=step, **more)
        learned: Any = trained.load_task(built.asked.task)[0].representation()
        weights = merged_state(learned)
        found.append(guard.check(weights, step))
        if _best(found) == step:
            save_tensors(folder / BEST, guard.weights, {"step": step})
        write_atomically(notes, json.dumps({"stages": [asdict(one) for one in found]}, indent=2).encode())
        if found[-1].alarm:
            say(f"alarm at step {step:,}: {found[-1].alarm}")
    kept = _best(found)
    source = folder / (BEST if kept else START)
    about = {"encoder": built.asked.encoder, "spec": built.asked.spec.to_json(), "step": kept}
    save_tensors(folder / "encoder.safetensors", load_tensors(source)[0], about)
    told = {
        "stages": [asdict(one) for one in found], "kept": kept, "labelled": guard.labelled, "ended": True,
    }  # fmt: skip
    write_atomically(notes, json.dumps(told, indent=2).encode())
    return _told(Run(folder, built.asked.module), told)


def _told(of: Run, told: dict[str, Any]) -> Adapted:
    return Adapted(of, tuple(Stage(**one) for one in told["stages"]), told["kept"], told["labelled"])


def _best(found: list[Stage]) -> int:
    """Return the step of the best stage: by accuracy, the later of equal ones; else the last without an alarm."""
    sound = [stage for stage in found if not stage.alarm]
    if found[0].accuracy is None:
        return sound[-1].step
    return max(sound, key=lambda stage: (stage.accuracy, stage.step)).step


class Guard:
    """Looks at encoders of a run: how much of the frozen start's structure is left, and what few labels say.

    `first` is what is found of the start; `weights` are those of the encoder that was looked at last.
    """

    def __init__(self, built: Built, folder: Path, quiet: bool) -> None:
        from sklearn.cluster import KMeans

        self.built, self.quiet = built, quiet
        source: Source = built.source
        ids = np.full(len(source), -1) if source.labels is None else source.labels.ids
        rng = np.random.default_rng(built.seed)
        labelled = rng.permutation(np.flatnonzero(ids >= 0))[: SAMPLES // 2]
        others = rng.permutation(np.setdiff1d(np.arange(len(source)), labelled))[: SAMPLES - len(labelled)]
        chosen = np.concatenate([labelled, others])
        self.source = source.take(chosen)
        self.weights: dict[str, torch.Tensor] = {}
        start = Run(folder, built.asked.module).load_start()
        assert start is not None
        numbers, x = self._features(start)
        self.source, labelled = source.take(chosen[numbers]), labelled[numbers[numbers < len(labelled)]]
        groups = max(2, min(CLUSTERS, len(x) // MEMBERS))
        z = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        self.clusters = KMeans(groups, n_init=3, random_state=built.seed).fit_predict(z)
        self.chance = float(np.bincount(self.clusters).max() / len(self.clusters))
        y = ids[labelled]
        self.rows = np.arange(len(labelled))[np.isin(y, np.flatnonzero(np.bincount(y[y >= 0], minlength=1) > 1))]
        self.y = y[self.rows]
        if len(np.unique(self.y)) < 2:
            self.rows = self.rows[:0]
        self.labelled = len(self.rows)
        graph = build_graph(x)
        self.structure, self.right = self._structure(graph), self._right(x, graph)
        known = (float(self.right.mean()), 0.0, 0.0) if self.labelled else (None, None, None)
        self.first = Stage(0, self.structure, *known)

    def check(self, weights: dict[str, torch.Tensor], step: int) -> Stage:
        """Return what is found with these weights of the representation."""
        encoder = read_out(self.built, weights, self.built.source)
        self.weights = encoder.state_dict()
        numbers, x = self._features(encoder)
        if len(numbers) < len(self.source):
            raise RunFailed(f"{len(self.source) - len(numbers):,} samples could be read at first and cannot be now")
        if not np.isfinite(x).all():
            return Stage(step, 0.0, alarm="Its features are not finite.")
        graph, alarm = build_graph(x), ""
        structure = self._structure(graph)
        left = (structure - self.chance) / max(self.structure - self.chance, 1e-6)
        known = f"neighbours told {self.structure:.1%} of the frozen clusters at the start and tell {structure:.1%} now"
        if left < KEPT:
            alarm = (
                f"The encoder lost what the frozen one knew: {known} (chance {self.chance:.1%}). Take a lower --lr, "
                "fewer steps, or --l2-sp."
            )
        elif left < UNSEEN and not self.labelled:
            alarm = f"Whether a change as large as this one is a gain, only --labels can tell: {known}."
        if not self.labelled:
            return Stage(step, structure, alarm=alarm)
        right = self._right(x, graph)
        gain = right - self.right
        half = 1.96 * float(gain.std(ddof=1)) / len(gain) ** 0.5
        if float(gain.mean()) + half < 0:
            alarm = (
                f"The encoder fell below the frozen one by {-100 * gain.mean():.1f} ± {100 * half:.1f} points on the "
                "labels given. Take a lower --lr, fewer steps, or --l2-sp."
            )
        return Stage(step, structure, float(right.mean()), float(gain.mean()), half, alarm)

    def _features(self, encoder: nn.Module) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        return extract(encoder, self.source, self.built.asked.spec, self.built.fabric.device, self.quiet)

    def _structure(self, graph: sparse.csr_array) -> float:
        """Return how many samples' cluster is the most common one, by weight, among their neighbours."""
        votes = graph @ np.eye(int(self.clusters.max()) + 1, dtype=np.float32)[self.clusters]
        return float((votes.argmax(1) == self.clusters).mean())

    def _right(self, x: NDArray[np.float32], graph: sparse.csr_array) -> NDArray[np.float64]:
        """Return how often each labelled sample is predicted while it is held out: by spreading, by a linear probe."""
        if not self.labelled:
            return np.zeros(0)
        classes = int(self.y.max()) + 1
        right = np.zeros(self.labelled)
        for repeat in range(REPEATS):
            fold = stratified_folds(self.y, FOLDS, repeat)
            for number in np.unique(fold):
                out, kept = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
                spread = spread_labels(graph, self.rows[kept], self.y[kept], classes)[self.rows[out]]
                right[out] += (spread.argmax(1) == self.y[out]) & spread.any(1)
                probe = fit_probe(torch.from_numpy(x[self.rows[kept]]), self.y[kept], classes, penalties=[PENALTY])
                right[out] += probe.predict(torch.from_numpy(x[self.rows[out]])) == self.y[out]
        return right / (2 * REPEATS)
