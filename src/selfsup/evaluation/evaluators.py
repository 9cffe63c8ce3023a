"""The evaluators of frozen features, by name. A new one is a function in a file of its own, and a row here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from selfsup.evaluation.attentive import read_attentive
from selfsup.evaluation.drawn import Drawn, Poolings
from selfsup.evaluation.knn import read_knn
from selfsup.evaluation.linear import read_linear
from selfsup.evaluation.propagate import prepare_pool, prepare_transductive, read_propagate, read_transductive


@dataclass(frozen=True)
class Evaluator:
    """How frozen features are read: a function of a draw of labels and of the test features that predicts the test.

    It returns class ids (m,), numbers (m,) or (m, targets), or scores (m, labels), as its targets are. Whatever it
    chooses, it chooses on the draw.
    """

    predict: Callable[[Drawn, Poolings], NDArray[Any]]
    title: str  # of a chart
    about: str
    targets: tuple[str, ...] = ("classes",)  # keys of `TARGETS`
    features: Literal["own", "poolings", "tokens"] = "own"  # what it needs of an encoder
    default: bool = True  # whether it is used where no protocol is asked for
    prepare: Callable[[Poolings, Poolings], Any] | None = None  # of pool and test, once; see `Drawn.prepared`


EVALUATORS = {
    "linear": Evaluator(
        read_linear,
        "linear probe",
        "logistic (numbers: ridge) regression on standardised features; penalty, and of an encoder with maps the "
        "pooling (its own, mean, 2×2), by cross-validation on the drawn labels",
        targets=("classes", "frames", "masks", "states", "numeric", "multi"),
        features="poolings",
    ),
    "knn": Evaluator(
        read_knn,
        "nearest neighbours",
        "cosine, weighted votes, k by leave-one-out on the drawn labels",
        targets=("classes", "frames", "masks"),
    ),
    "propagate": Evaluator(
        read_propagate,
        "propagated labels",
        "the drawn labels, spread over a graph of 10 nearest neighbours of all training samples, labelled or not (64 "
        "components, cosine⁸, 60 steps, estimated class frequencies), then a linear probe of what each sample became, "
        "weighted by its confidence; mixed with the probe of the drawn labels as held-out ones of them say",
        prepare=prepare_pool,
    ),
    "transductive": Evaluator(
        read_transductive,
        "propagated labels, test samples in the graph",
        "as propagate, but the test samples are in the graph, without their labels: never compare it with a reader "
        "that does not see them",
        default=False,
        prepare=prepare_transductive,
    ),
    "attentive": Evaluator(
        read_attentive,
        "attentive probe",
        "one learned query over the tokens, then linear; AdamW, 300 steps, weight decay by a held-out fifth of the "
        "drawn labels",
        features="tokens",
        default=False,
    ),
}
