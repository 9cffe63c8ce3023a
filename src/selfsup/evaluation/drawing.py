"""The label-efficiency curve as an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.ticker import NullLocator

from selfsup.base.figures import Figure
from selfsup.evaluation.evaluators import EVALUATORS
from selfsup.evaluation.score import Score, count_labels, measured_on


def curves(about: Mapping[str, Any], scores: Sequence[Score]) -> Figure:
    """Return a figure with a panel for each evaluator and a curve for each representation, always in the same colour.

    The axis of labels is logarithmic. Training from scratch and fine-tuning are in every panel.
    """
    rows = list(dict.fromkeys((score.representation, score.protocol) for score in scores))
    evaluators = list(dict.fromkeys(protocol for _, protocol in rows if protocol in EVALUATORS)) or [""]
    colours = {row: f"C{i}" for i, row in enumerate(dict.fromkeys(_label(*row) for row in rows))}
    figure = Figure((5.5 * len(evaluators), 4.2), layout="constrained")
    panels = figure.subplots(1, len(evaluators), sharey=True, squeeze=False)[0]
    places = {score.shots: count_labels(about, score.shots) for score in scores}
    for panel, evaluator in zip(panels, evaluators, strict=True):
        for row in rows:
            frozen = row[1] in EVALUATORS
            if frozen and row[1] != evaluator:
                continue
            own = sorted((s for s in scores if (s.representation, s.protocol) == row), key=lambda s: places[s.shots])
            x, y = [places[s.shots] for s in own], [s.mean for s in own]
            half = [s.half for s in own]  # none where it is nan
            label, style = _label(*row), "o-" if frozen else "o--"
            panel.errorbar(x, y, half, label=label, color=colours[label], fmt=style, markersize=3, capsize=2)
        if "chance" in about:
            panel.axhline(about["chance"]["value"], color="0.6", linewidth=0.8, linestyle=":")
        panel.set_xscale("log")
        panel.set_xticks(list(places.values()), ["all" if shots is None else str(shots) for shots in places])
        panel.xaxis.set_minor_locator(NullLocator())
        panel.set_xlabel(about["unit"])
        panel.set_title(EVALUATORS[evaluator].title if evaluator else "trained")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel(f"{about['metric']} on {measured_on(about)}")
    panels[-1].legend(fontsize="small")
    return figure


def _label(representation: str, protocol: str) -> str:
    return f"{representation}, fine-tuned" if protocol == "finetune" else representation
