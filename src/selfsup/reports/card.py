"""The model card of a run: what it is for, how it was trained, and what was measured, with intervals and baselines."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from selfsup.evaluation.result import Evaluation, over
from selfsup.evaluation.score import measured_on
from selfsup.run import Run
from selfsup.tasks import TASKS, find_task

PIPELINES = {"image": "image-feature-extraction", "text": "feature-extraction"}  # the Hub's names


INTENDED = """\
Features of data like those it was trained on: to label them from few labels, to search them, to fine-tune. It is no
classifier. It knows what its training data showed and no more, and is one-sided where they were. Measure it on data of
your own, beside the baselines below, before you rely on it."""


def model_card(run: Run, evaluation: Evaluation | None, name: str) -> str:
    """Return the card as Markdown. Nothing in it is claimed without a number: without an evaluation it says so."""
    kind, paper = run.spec.kind, find_task(run.task).paper if run.task in TASKS else ""
    began = " Its weights were trained before, and this run went on from them." if run.began_trained else ""
    results = _results(evaluation) if evaluation else ["Not evaluated: nothing is claimed of this encoder."]
    parts = [
        _front(run, kind),
        f"# {name.rpartition('/')[2]}",
        f"An encoder of data of the kind {kind}, {run.encoder_name}, pretrained on `{run.task}`"
        f"{f' ({paper})' if paper else ''}.{began} It takes {run.spec.describe()} and gives one vector for each.",
        "## Use",
        f"```python\nimport selfsup\n\nencoder = selfsup.load('hf://{name}')  # a module (B, …) -> (B, dim)\n```",
        f"```\nselfsup evaluate hf://{name} --data LABELLED\nselfsup label hf://{name} DATA --labels few.csv\n```",
        "Loading reads recipe.json and tensors, and runs no code of this repository.",
        *("## Intended use", " ".join(INTENDED.split())),
        *("## Training", _table(("", ""), _training(run.recipe))),
        *("## Results", *results),
    ]
    return "\n\n".join(parts) + "\n"


def _training(recipe: dict[str, Any]) -> list[tuple[str, str]]:
    data, plan, task = recipe.get("data", {}), recipe["plan"], recipe["task"]
    samples = f"{data['samples']:,} samples" if "samples" in data else "samples"
    labels = "with labels" if data.get("labels") else "no labels were given"
    options = [f"{key} {value}" for key, value in task["hyperparameters"].items() if not isinstance(value, dict)]
    return [
        ("data", f"{_last(data.get('name', 'unknown'))}: {samples}, {labels}"),
        ("task", ", ".join([f"`{task['name']}`", *options])),
        ("steps × batch", f"{plan['steps']:,} × {plan.get('batch_size', 'unknown')}"),
        ("optimizer", f"{plan.get('optimizer', 'unknown')}, learning rate at most {plan.get('lr', 'unknown')}"),
        ("seed", str(plan.get("seed", "unknown"))),
        ("precision", recipe["precision"]),
        ("versions", ", ".join(f"{key} {value}" for key, value in recipe.get("versions", {}).items())),
    ]


def _last(name: object) -> str:
    """Return the last part of a path: where a folder lies is nobody's concern."""
    return Path(str(name)).name or str(name)


def _front(run: Run, kind: str) -> str:
    lines = ["---", "library_name: selfsup", "tags:"]
    lines += [f"- {json.dumps(tag)}" for tag in ("selfsup", "self-supervised-learning", run.task, kind)]
    lines += [f"pipeline_tag: {PIPELINES[kind]}"] if kind in PIPELINES else []
    lines += (
        [f"base_model: {json.dumps(f'timm/{run.encoder_name}')}"] if run.recipe["encoder"].get("pretrained") else []
    )
    return "\n".join([*lines, "---"])


def _results(evaluation: Evaluation) -> list[str]:
    about, shots = evaluation.about, list(dict.fromkeys(score.shots for score in evaluation.scores))
    rows: dict[tuple[str, str], dict[int | None, str]] = {}
    for score in evaluation.scores:
        cells = rows.setdefault((score.representation, score.protocol), {})
        factor, digits = (1, 2) if about["metric"] == "R²" else (100, 1)
        around = "" if math.isnan(score.half) else f" ± {factor * score.half:.{digits}f}"
        cells[score.shots] = f"{factor * score.mean:.{digits}f}{around}"
    head = ("representation", "read by", *("all" if count is None else f"{count:,}" for count in shots))
    table = _table(head, [(*row, *(cells.get(count, "") for count in shots)) for row, cells in rows.items()])
    percent = "" if about["metric"] == "R²" else ", %,"
    chance = about.get("chance")
    return [
        *(line for line in (evaluation.verdict, evaluation.headline) if line),
        f"{about['metric'].capitalize()}{percent} on {measured_on(about)} of "
        f"{_last(about['test'].get('name', 'other data'))}, by {about['unit']}: mean ± 95% interval over {over(about)}."
        + (f" {chance['words'].capitalize()}: {chance['value']:.3g}." if chance else ""),
        table,
        *(f"Warning: {line}" for line in about.get("warnings", ())),
    ]


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', '/') for cell in line)} |" for line in lines)
