"""The label-efficiency curve of a report, from the numbers of an evaluation."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selfsup.errors import UserError
from selfsup.reports.charts import Line, chart, legend
from selfsup.reports.page import Html, Section, join, table, tag

READ_BY = {"linear": "linear probe", "knn": "nearest neighbours", "trained": "trained", "finetune": "fine-tuning"}


def read_evaluation(path: Path) -> dict[str, Any] | None:
    """Return what `Evaluation.save` wrote, None where there is none. Raises `UserError` for anything else."""
    try:
        saved: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for score in saved["scores"]:
            shots, half = score["shots"], score["half"]
            sound = math.isfinite(score["mean"]) and (half is None or math.isfinite(half))
            if not (sound and (shots is None or shots > 0) and score["representation"] and score["protocol"]):
                raise ValueError(f"the score {score} is impossible")
        if not saved["scores"] or not isinstance(saved["about"], dict):
            raise ValueError("it has no scores")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no evaluation: {error}; remove it, or evaluate again") from None
    return saved


def few_labels(saved: Mapping[str, Any] | None, why: str) -> Section:
    """Return accuracy against labels per class, with baselines and intervals, as curves and a table, or `why` not."""
    title = "With few labels"
    if saved is None:
        return Section("labels", title, tag("p", why))
    about, scores = saved["about"], saved["scores"]
    names = list(dict.fromkeys(score["representation"] for score in scores))
    protocols = list(dict.fromkeys(score["protocol"] for score in scores))
    counts = sorted({score["shots"] for score in scores if score["shots"] is not None})
    places: dict[int | None, float] = {count: float(count) for count in counts} | {None: _all(about, counts)}
    frozen = [protocol for protocol in protocols if protocol != "trained"] or protocols
    majority = about.get("majority")
    reference = (majority, "always the largest class") if isinstance(majority, float) else None
    charts = []
    for protocol in frozen:
        lines = []
        for colour, name in enumerate(names):
            own = [s for s in scores if s["representation"] == name and s["protocol"] in (protocol, "trained")]
            own.sort(key=lambda score: places[score["shots"]])
            if own:
                points = [(places[score["shots"]], score["mean"]) for score in own]
                lines.append(Line(name, points, [score["half"] or 0.0 for score in own], colour, marks=True))
        ticks = _ticks([*counts, *([None] if any(score["shots"] is None for score in scores) else [])], places)
        charts.append(
            chart(
                f"accuracy, {READ_BY.get(protocol, protocol)}", lines, below="labels per class", ticks=ticks,
                reference=reference, log=True, percent=True,
            )
        )  # fmt: skip
    parts = [
        tag("p", _explained(about)),
        legend([(f"s{colour % 10}", name) for colour, name in enumerate(names)]),
        tag("div", *charts, class_="two"),
        _numbers(scores, names, protocols, [*counts, None]),
    ]
    return Section("labels", title, join(parts))


def headline(saved: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    """Return (name, accuracy, explanation) of each representation at about 10 labels per class, best protocol first."""
    if saved is None:
        return []
    counts = {score["shots"] for score in saved["scores"]} - {None}
    shots = min(counts, key=lambda count: abs(math.log(count / 10))) if counts else None
    first = saved["scores"][0]["protocol"]
    chosen = [s for s in saved["scores"] if s["shots"] == shots and s["protocol"] in (first, "trained")]
    words = "all labels" if shots is None else f"{shots} label{'s' * (shots > 1)} per class"
    return [(s["representation"], _cell(s), f"{READ_BY.get(s['protocol'], s['protocol'])}, {words}") for s in chosen]


def _explained(about: Mapping[str, Any]) -> str:
    data, test = about.get("data", {}), about.get("test", {})
    apart = " set aside first" if test.get("held out") else ""
    return (
        f"Labels drawn from {data.get('name')} ({data.get('samples', 0):,} samples, {about.get('classes')} classes), "
        f"measured on {test.get('samples', 0):,} samples of {test.get('name')}{apart}. Mean and 95% interval over "
        f"{about.get('draws')} draws of the labels, seed {about.get('seed')}. Every choice is made on the drawn labels."
    )


def _all(about: Mapping[str, Any], counts: Sequence[int]) -> float:
    """Return where 'all' lies: the mean number of labels per class, right of the other counts."""
    samples, classes = about.get("data", {}).get("samples", 0), about.get("classes") or 1
    return float(max(samples / classes, 1.5 * counts[-1] if counts else 1.0))


def _ticks(counts: Sequence[int | None], places: Mapping[int | None, float]) -> list[tuple[float, str]]:
    return [(places[count], "all" if count is None else f"{count:,}") for count in counts]


def _numbers(
    scores: Sequence[Mapping[str, Any]], names: Sequence[str], protocols: Sequence[str], counts: Sequence[int | None]
) -> Html:
    cells = {(s["representation"], s["protocol"], s["shots"]): _cell(s) for s in scores}
    counts = [count for count in counts if any(score["shots"] == count for score in scores)]
    rows = [
        (name, READ_BY.get(reader, reader), *(tag("td", cells.get((name, reader, c), ""), class_="n") for c in counts))
        for name in names
        for reader in protocols
        if any((name, reader, count) in cells for count in counts)
    ]
    head = ["representation", "read by", *("all" if count is None else count for count in counts)]
    return table(head, rows, "Accuracy by labels per class, ± 95% interval")


def _cell(score: Mapping[str, Any]) -> str:
    return f"{score['mean']:.1%}" + (f" ±{100 * score['half']:.1f}" if score["half"] is not None else "")
