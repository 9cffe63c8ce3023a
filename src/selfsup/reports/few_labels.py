"""The label-efficiency curve of a report, from the numbers of an evaluation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from selfsup.evaluation.result import over
from selfsup.reports.charts import Line, chart, legend
from selfsup.reports.page import Html, Section, join, table, tag

if TYPE_CHECKING:
    from selfsup.evaluation.result import Evaluation
    from selfsup.evaluation.score import Score

READ_BY = {
    "linear": "linear probe", "knn": "nearest neighbours", "attentive": "attentive probe",
    "propagate": "propagated labels", "transductive": "propagated labels, test samples in the graph",
    "trained": "trained", "self-trained": "trained, with pseudo-labels", "finetune": "fine-tuned",
}  # fmt: skip
TRAINED = ("trained", "self-trained", "finetune")  # no readers of frozen features: shown beside each of those


def few_labels(evaluation: Evaluation | None, why: str) -> Section:
    """Return the metric by number of labels, with baselines and intervals, as curves and a table, or `why` not."""
    title = "With few labels"
    if evaluation is None:
        return Section("labels", title, tag("p", why))
    about, scores = evaluation.about, evaluation.scores
    rows = list(dict.fromkeys((score.representation, score.protocol) for score in scores))
    names = list(dict.fromkeys(_name(*row) for row in rows))
    places = {score.shots: evaluation.labels(score.shots) for score in scores}
    order = sorted(places, key=lambda shots: (places[shots], shots is None))
    ticks = [(places[shots], _shots(shots)) for shots in order]
    chance = about.get("chance")
    charts = [
        chart(
            f"{about['metric']}, {READ_BY.get(reader, reader)}",
            [_line(evaluation, row, names, places) for row in rows if row[1] in (reader, *TRAINED)],
            below=about["unit"], ticks=ticks, log=True, percent=about["metric"] != "R²",
            reference=(chance["value"], chance["words"]) if chance else None,
        )
        for reader in dict.fromkeys(protocol for _, protocol in rows if protocol not in TRAINED)
    ]  # fmt: skip
    cells = {(score.representation, score.protocol, score.shots): _cell(evaluation, score) for score in scores}
    lines = [
        (row[0], READ_BY.get(row[1], row[1]), *(tag("td", cells.get((*row, shots), ""), class_="n") for shots in order))
        for row in rows
    ]
    head = ["representation", "read by", *map(_shots, order)]
    parts = [
        tag("p", why) if why else Html(),
        *(tag("p", tag("strong", line)) for line in (evaluation.verdict, evaluation.headline) if line),
        tag("p", _explained(evaluation)),
        *(tag("p", tag("strong", "Warning: ", class_="bad"), line) for line in about.get("warnings", ())),
        legend([(f"s{colour % 10}", name) for colour, name in enumerate(names)]),
        tag("div", *charts, class_="two"),
        table(head, lines, f"{about['metric']} by {about['unit']}, ± 95% interval"),
        _metrics(evaluation),
        _variables(evaluation),
    ]
    return Section("labels", title, join(parts))


def headline(evaluation: Evaluation | None) -> list[tuple[str, str, str]]:
    """Return (name, score, explanation) of each representation near 10 labels, by the first reader or trained."""
    if evaluation is None:
        return []
    counts = [score.shots for score in evaluation.scores if score.shots is not None]
    shots = min(counts, key=lambda count: abs(math.log(count / 10))) if counts else None
    first, unit = evaluation.scores[0].protocol, evaluation.about["unit"]
    words = "all labels" if shots is None else f"{shots} {unit}"
    return [
        (_name(s.representation, s.protocol), _cell(evaluation, s), f"{READ_BY.get(s.protocol, s.protocol)}, {words}")
        for s in evaluation.scores
        if s.shots == shots and s.protocol in (first, *TRAINED)
    ]


def _line(evaluation: Evaluation, row: tuple[str, str], names: list[str], places: dict[int | None, float]) -> Line:
    own = [score for score in evaluation.scores if (score.representation, score.protocol) == row]
    own.sort(key=lambda score: places[score.shots])
    points = [(places[score.shots], score.mean) for score in own]
    return Line(_name(*row), points, [score.half for score in own], names.index(_name(*row)), marks=True)


def _explained(evaluation: Evaluation) -> str:
    about = evaluation.about
    data, test = about.get("data", {}), about["test"]
    frames = f"{test['frames']:,} frames of " if "frames" in test else ""
    apart = " set aside first" if test.get("held out") and about.get("folds", 1) == 1 else ""
    return (
        f"Labels drawn from {data.get('name')} ({data.get('samples')} samples), measured on {frames}"
        f"{test['samples']:,} samples of {test.get('name')}{apart}. Mean and 95% interval over {over(about)}, seed "
        f"{about.get('seed')}. Every choice is made on the drawn labels."
    )


def _metrics(evaluation: Evaluation) -> Html:
    names = list(dict.fromkeys(name for row in evaluation.metrics.values() for name in row))
    if not names:
        return Html()
    values = evaluation.metrics.values()
    rows = [
        (name, *(tag("td", f"{row[name]:.3g}" if name in row else "", class_="n") for row in values)) for name in names
    ]
    return table(["metric", *evaluation.metrics], rows, "Further metrics of the test features")


def _variables(evaluation: Evaluation) -> Html:
    title, head, rows = evaluation.variables()
    cells = [(*row[:2], *(tag("td", cell, class_="n") for cell in row[2:])) for row in rows]
    return table(head, cells, title.capitalize()) if rows else Html()


def _name(representation: str, protocol: str) -> str:
    return f"{representation}, fine-tuned" if protocol == "finetune" else representation


def _shots(shots: int | None) -> str:
    return "all" if shots is None else f"{shots:,}"


def _cell(evaluation: Evaluation, score: Score) -> str:
    if evaluation.about["metric"] == "R²":
        return f"{score.mean:.2f}" + ("" if math.isnan(score.half) else f" ±{score.half:.2f}")
    return f"{score.mean:.1%}" + ("" if math.isnan(score.half) else f" ±{100 * score.half:.1f}")
