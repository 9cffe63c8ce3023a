"""The sections of the report that need only the run folder, not the data."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selfsup.reports.charts import Line, chart
from selfsup.reports.page import Section, join, table, tag
from selfsup.run import Run

ABOUT_STEP = {"step", "chance", "lr", "samples_per_s", "waiting", "health", "spread", "rank"}
POINTS = 400  # of a curve: more could not be told apart
NAMED = 100  # skipped files that are named


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSON-lines file; damaged lines (a kill may cut the last one) are left out."""
    lines = []
    if path.exists():
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                line = json.loads(text)
            except (ValueError, RecursionError):
                continue
            if isinstance(line, dict):
                lines.append(line)
    return lines


def what_was_done(run: Run, note: str) -> Section:
    """Return the command, task, encoder, data, plan and versions of a run; `note` says whether the data were found."""
    recipe = run.recipe
    data, plan = recipe.get("data", {}), recipe["plan"]
    started = ", started from pretrained weights" if recipe["encoder"].get("pretrained") else ""
    if "init" in recipe["encoder"]:
        started = f", started from that of {recipe['encoder']['init']}"
    rows: list[tuple[str, object]] = [
        ("task", run.task),
        ("its options", _pairs(recipe["task"]["hyperparameters"])),
        ("encoder", run.encoder_name + started),
        ("data", f"{data.get('name')}: {data.get('samples')} samples, fingerprint {data.get('fingerprint')}"),
        (run.spec.samples, run.spec.describe()),
        ("plan", _pairs({key: value for key, value in plan.items() if key not in ("seed", "milestones")})),
        ("seed", plan.get("seed")),
        ("precision", recipe["precision"]),
        ("versions", _pairs(recipe.get("versions", {}))),
    ]
    if samples := recipe.get("recalibrated"):
        rows.insert(-1, ("BatchNorm", f"statistics of {samples} plain samples, taken again after training"))
    command = recipe.get("command", "the command was not recorded")
    body = [tag("pre", tag("code", command), tabindex="0"), table([], rows, css="facts")]
    return Section("done", "What was done", join([*body, tag("p", note) if note else ""]))


def training(run: Run, lines: Sequence[Mapping[str, Any]]) -> Section:
    """Return the training curves, each with the value of a blind guess if there is one."""
    lines = [line for line in lines if isinstance(line.get("step"), int) and 0 <= line["step"] <= 10**9]
    if not lines:
        return Section("training", "Training", tag("p", "The run has not written any metrics yet."))
    last, steps = lines[-1], run.recipe["plan"]["steps"]
    chance = _finite(last.get("chance"))
    charts = []
    for name in [key for key in last if key not in ABOUT_STEP] + ["spread", "rank"]:
        points = _thin([(line["step"], float(line[name])) for line in lines if _finite(line.get(name)) is not None])
        if points:
            blind = _blind(name, chance)
            charts.append(chart(_TITLES.get(name, name), [Line(name, points)], below="step", reference=blind))
    told = [f"{last['step']:,} of {steps:,} steps"]
    if chance is not None and _finite(last.get("loss")) is not None:
        told.append(f"the loss is {last['loss']:.3f}; a guess that ignores the input has {chance:.3f}")
    rates = sorted(line["samples_per_s"] for line in lines if _finite(line.get("samples_per_s")) is not None)
    if rates:
        told.append(f"{rates[len(rates) // 2]:,.0f} samples/s")
    if _finite(last.get("waiting")) is not None:
        told.append(f"{last['waiting']:.0%} of the time spent waiting for data")
    body = [tag("p", "; ".join(told) + ".")]
    if last.get("health"):
        css = "good" if last["health"] == "healthy" else "bad"
        body.append(tag("p", "Collapse signal: ", tag("strong", last["health"], class_=css), "."))
    return Section("training", "Training", join([*body, tag("div", *charts, class_="two")]))


def skipped(lines: Sequence[Mapping[str, Any]]) -> Section:
    """Return the files that could not be read, and why."""
    if not lines:
        return Section("skipped", "Skipped files", tag("p", "No file had to be skipped in training."))
    counts = Counter(str(line.get("reason")) for line in lines)
    words = ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common())
    named = table(["reason", "file"], [(line.get("reason"), line.get("path")) for line in lines[:NAMED]], css="facts")
    more = f"; the first {NAMED} are named" if len(lines) > NAMED else ""
    return Section(
        "skipped", "Skipped files",
        join([tag("p", f"{len(lines):,} could not be read: {words}{more}. skipped.jsonl has them all."), named]),
    )  # fmt: skip


_TITLES = {
    "spread": "spread of the features (1: all directions, 0: collapsed)",
    "rank": "effective rank of the features of a batch",
}


def _blind(name: str, chance: float | None) -> tuple[float, str] | None:
    if chance is None or name not in ("loss", "accuracy"):
        return None
    return (chance, "chance") if name == "loss" else (math.exp(-max(chance, 0.0)), "chance")


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items() if value is not None) or "none"


def _finite(value: Any) -> float | None:
    """Return a number that can be drawn, None for anything else."""
    return float(value) if isinstance(value, int | float) and abs(value) < 1e100 else None


def _thin(points: list[tuple[int, float]]) -> list[tuple[float, float]]:
    """Return at most `POINTS` points: means of equal parts."""
    size = math.ceil(len(points) / POINTS)
    parts = [points[start : start + size] for start in range(0, len(points), size or 1)]
    return [(part[-1][0], sum(y for _, y in part) / len(part)) for part in parts]
