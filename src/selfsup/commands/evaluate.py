"""Does it help? Few-label accuracy beside its baselines. Imports torch only when it is called."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from selfsup.base.checks import check_numbers
from selfsup.errors import RunFailed, UserError, unknown
from selfsup.run import Run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from selfsup.evaluation.result import Evaluation
    from selfsup.source import Source

    RunName = str | os.PathLike[str] | Run
    Data = str | os.PathLike[str] | NDArray[np.uint8] | Source
    Numbers = str | Sequence[int | None]
    Names = str | Sequence[str]
else:
    RunName = Data = Numbers = Names = str  # what the command line can give


def evaluate(
    run: RunName,
    /,
    *,
    data: Data,
    test: Data | None = None,
    labels: str | None = None,
    test_labels: str | None = None,
    target: str = "classes",
    shots: Numbers | None = None,
    protocol: Names | None = None,
    readings: Names = "",
    draws: int = 5,
    scratch: bool = True,
    semi: bool = False,
    reference: str | None = None,
    seed: int = 0,
    device: str = "auto",
    quiet: bool = False,
) -> Evaluation:
    """Measure what an encoder is worth with few labels, beside its baselines.

    The frozen features of the run's encoder, of the same encoder untrained, the raw pixels and their principal
    components are read by a linear probe and by nearest neighbours; the same encoder is trained from scratch on the
    same labels. Whatever a protocol chooses, it chooses on the drawn labels; the test part is only measured. Other data
    than those of pretraining tell how the encoder transfers. The result is also kept as evaluation.json in the run
    folder, where `report` finds it. See docs/evaluation.md.

    Args:
        run: A run folder.
        data: Labelled data, from which the labels are drawn.
        test: Labelled data to measure on; by default a fifth of every class of the data, set aside first.
        labels: Where the labels of the data are: 'folders', a CSV file (path,label) or an .npz file with y.
        test_labels: The same for the test data.
        target: What a label is: classes, numeric (a number, R²), multi (several, as a|b|c; average precision).
        shots: Labels per class, and 'all'; by default 1,2,5,10,20,50,100,all as far as there are so many labels.
        protocol: linear, knn, finetune, attentive (encoders with tokens); by default linear,knn.
        readings: More about the features of the test part: retrieval, clustering, label-free.
        draws: How many times the labels are drawn.
        scratch: Whether to train from scratch too, which takes long.
        semi: Whether to train s4l too, on the drawn labels and all other training samples, those that never had a label
            included, without theirs; takes the longest.
        reference: A timm model whose pretrained weights are on this machine, as one more baseline.
        seed: Seed of the draws, of the split and of the baselines.
        device: auto, cpu, cuda or mps.
        quiet: No progress bar.

    Raises:
        UserError: For labels that are missing, of one class, or fewer than asked for.
    """
    import numpy as np

    from selfsup.data.open import open_data
    from selfsup.evaluation.few_labels import align
    from selfsup.evaluation.measuring import Request, measure
    from selfsup.evaluation.readings import READINGS
    from selfsup.evaluation.reference import load_reference
    from selfsup.evaluation.targets import TARGETS, split
    from selfsup.train.device import make_fabric

    run = run if isinstance(run, Run) else Run(run)
    if target not in TARGETS:
        raise unknown("target", target, TARGETS)
    kind = TARGETS[target]
    protocols = _names("protocol", kind.protocols[:2] if protocol is None else protocol, kind.protocols, kind.name)
    wanted = _names("readings", readings, READINGS, kind.name)
    check_numbers(draws=draws, seed=seed)
    if semi and kind.name != "classes":
        raise UserError(f"--semi is for --target classes, not {kind.name}")
    encoder = run.load()
    other = load_reference(reference) if reference is not None else None
    opened = open_data(data, labels)
    numbers, unlabelled = _labelled(opened, "--labels")
    if test is None:
        numbers, aside = split(opened, seed, target=kind)
        held_out = opened.take(aside)
    else:
        held_out = open_data(test, test_labels)
        held_out = held_out.take(_labelled(held_out, "--test-labels")[0])
    train = opened.take(numbers)
    assert train.labels is not None
    assert held_out.labels is not None
    train.labels, held_out.labels = align(train.labels, held_out.labels)
    request = Request(
        run, encoder, train, held_out, lambda kept: opened.take(np.concatenate([numbers[kept], unlabelled])), kind,
        shots, protocols, wanted, draws, scratch and kind.name == "classes", semi, other, seed, test is None, quiet,
    )  # fmt: skip
    result = measure(request, make_fabric(device, run.recipe["precision"]))
    try:
        result.save(run.folder / "evaluation.json")
    except RunFailed as error:  # a run folder that may only be read: the numbers are worth more than the note
        print(error, file=sys.stderr)
    return result


def _names(option: str, given: str | Sequence[str], known: Sequence[str], target: str) -> tuple[str, ...]:
    names = [name.strip() for name in given.split(",")] if isinstance(given, str) else list(given)
    for name in (names := [name for name in dict.fromkeys(names) if name]):
        if name not in known:
            raise unknown(f"{option} of --target {target}", name, known)
    if not names and option == "protocol":
        raise UserError(f"--protocol names none; known: {', '.join(known)}")
    return tuple(names)


def _labelled(source: Source, option: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the numbers of the samples that have a label, and of those that have none."""
    import numpy as np

    if source.labels is None or not (source.labels.ids >= 0).any():
        raise UserError(
            f"{source.name} has no labels: give {option} folders, a CSV file (path,label) or an .npz file with y"
        )
    return np.flatnonzero(source.labels.ids >= 0), np.flatnonzero(source.labels.ids < 0)
