"""The label-efficiency curve as an image."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

if TYPE_CHECKING:
    from selfsup.evaluation.result import Evaluation

TRAINED = ("trained", "finetune")  # no readers of frozen features: shown in every panel


def curves(evaluation: Evaluation) -> Figure:
    """Return a figure with a panel a reader of frozen features, a curve a representation, in the same colour in each.

    The axis of labels is logarithmic. Training from scratch and fine-tuning are in every panel.
    """
    about = evaluation.about
    rows = list(dict.fromkeys((score.representation, score.protocol) for score in evaluation.scores))
    readers = list(dict.fromkeys(protocol for _, protocol in rows if protocol not in TRAINED)) or ["trained"]
    colours = {row: f"C{i}" for i, row in enumerate(dict.fromkeys(_label(*row) for row in rows))}
    figure = Figure((5.5 * len(readers), 4.2), layout="constrained")
    panels = figure.subplots(1, len(readers), sharey=True, squeeze=False)[0]
    places = {score.shots: evaluation.labels(score.shots) for score in evaluation.scores}
    for panel, reader in zip(panels, readers, strict=True):
        for row in rows:
            if row[1] not in (reader, *TRAINED):
                continue
            scores = [s for s in evaluation.scores if (s.representation, s.protocol) == row]
            scores.sort(key=lambda score: places[score.shots])
            x, y = [places[s.shots] for s in scores], [s.mean for s in scores]
            half = [0.0 if math.isnan(s.half) else s.half for s in scores]
            style = "--" if row[1] in TRAINED else "-"
            label = _label(*row)
            panel.errorbar(x, y, half, label=label, color=colours[label], fmt=f"o{style}", markersize=3, capsize=2)
        if "chance" in about:
            panel.axhline(about["chance"]["value"], color="0.6", linewidth=0.8, linestyle=":")
        panel.set_xscale("log")
        panel.set_xticks(list(places.values()), ["all" if shots is None else str(shots) for shots in places])
        panel.xaxis.set_minor_locator(NullLocator())
        panel.set_xlabel(about["unit"])
        panel.set_title({"linear": "linear probe", "knn": "nearest neighbours"}.get(reader, reader))
        panel.grid(alpha=0.3)
    panels[0].set_ylabel(f"{about['metric']} on {about['test']['samples']:,} test samples")
    panels[-1].legend(fontsize="small")
    return figure


def _label(representation: str, protocol: str) -> str:
    return f"{representation}, fine-tuned" if protocol == "finetune" else representation
