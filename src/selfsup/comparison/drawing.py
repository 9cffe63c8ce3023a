"""The image of a comparison: the score of each stage, the baselines as lines."""

from __future__ import annotations

from selfsup.base.figures import Figure
from selfsup.comparison.candidates import BASELINES
from selfsup.comparison.judging import accuracy
from selfsup.comparison.result import Comparison, merit
from selfsup.evaluation.baselines import baseline_names


def draw_comparison(comparison: Comparison) -> Figure:
    """Return a figure: minutes of training across; accuracy in per cent with its 95% interval, or RankMe, up."""
    state = comparison.state
    minutes = [stage["fraction"] * state.plan["minutes_each"] for stage in state.plan["stages"]]
    unit = 100 if comparison.labelled else 1
    figure = Figure((7, 4.2), layout="constrained")
    axes = figure.subplots()
    for number, name in enumerate(state.plan["candidates"]):
        scores = state.scores.get(name, [])
        half = [unit * accuracy(score["select"])[1] if "select" in score else 0.0 for score in scores]
        nudged = [x + 0.004 * minutes[-1] * number for x in minutes[: len(scores)]]  # so that intervals do not overlap
        heights = [unit * merit(score) for score in scores]
        axes.errorbar(nudged, heights, half, fmt="o-", markersize=4, capsize=3, label=name)
    lines = (name for name in BASELINES if name in state.scores)
    for name, style in zip(lines, (":", "--", "-."), strict=False):
        if comparison.labelled or name not in baseline_names():
            axes.axhline(unit * merit(state.scores[name][-1]), color="0.4", linestyle=style, linewidth=1, label=name)
    axes.set_xlabel("minutes of training, each, as planned")
    axes.set_ylabel(comparison.measure)
    axes.set_xlim(0, 1.08 * minutes[-1])
    axes.grid(alpha=0.3)
    figure.legend(fontsize="small", loc="outside right upper")
    return figure
