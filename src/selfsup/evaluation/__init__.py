"""Does it help? Few-label accuracy beside its baselines. Imports torch only when it is called."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from selfsup.checks import check_numbers
from selfsup.errors import UserError, unknown
from selfsup.run import Run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from selfsup.data import Source
    from selfsup.evaluation.result import Evaluation
    from selfsup.task import Task

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
    shots: Numbers | None = None,
    protocol: Names = "linear,knn",
    draws: int = 5,
    scratch: bool = True,
    semi: bool = False,
    seed: int = 0,
    device: str = "auto",
    quiet: bool = False,
) -> Evaluation:
    """Measure what an encoder is worth with few labels, beside its baselines.

    The frozen features of the run's encoder, of the same encoder untrained, and the raw pixels are read by a linear
    probe and by nearest neighbours; the same encoder is trained from scratch on the same labels. Whatever a protocol
    chooses, it chooses by cross-validation on the drawn labels; the test part is only measured.

    Args:
        run: A run folder.
        data: Labelled data, from which the labels are drawn.
        test: Labelled data to measure on; by default a fifth of every class of the data, set aside first.
        labels: Where the labels of the data are: 'folders', a CSV file (path,label) or an .npz file with y.
        test_labels: The same for the test data.
        shots: Labels per class, and 'all'; by default 1,5,10,50,all as far as there are so many labels.
        protocol: linear, knn.
        draws: How many times the labels are drawn.
        scratch: Whether to train from scratch too, which takes long.
        semi: Whether to train s4l too, on the drawn labels and all other training samples, those that never had a label
            included, without theirs; takes the longest.
        seed: Seed of the draws, of the split and of the baselines.
        device: auto, cpu, cuda or mps.
        quiet: No progress bar.

    Raises:
        UserError: For labels that are missing, of one class, or fewer than asked for.
    """
    import numpy as np
    import torch

    from selfsup.data import open_data
    from selfsup.evaluation.features import extract
    from selfsup.evaluation.few_labels import READERS, align, draw_labels, read_features, split, train_on_draws
    from selfsup.evaluation.result import Evaluation
    from selfsup.pretraining import make_fabric
    from selfsup.tasks import TASKS, find_task
    from selfsup.tasks.semi.s4l import S4L
    from selfsup.tasks.supervised import Supervised

    run = run if isinstance(run, Run) else Run(run)
    protocols = [name.strip() for name in protocol.split(",")] if isinstance(protocol, str) else list(protocol)
    for name in protocols:
        if name not in READERS:
            raise unknown("protocol", name, READERS)
    check_numbers(draws=draws, seed=seed)
    encoder = run.load()
    opened = open_data(data, labels)
    numbers, unlabelled = _labelled(opened, "--labels")
    if test is None:
        numbers, aside = split(opened, seed)
        if not len(aside):
            raise UserError(f"no class of {opened.name} has two labels: none can be set aside to test on; give --test")
        held_out = opened.take(aside)
    else:
        held_out = open_data(test, test_labels)
        held_out = held_out.take(_labelled(held_out, "--test-labels")[0])
    train = opened.take(numbers)
    assert train.labels is not None
    assert held_out.labels is not None
    train.labels, held_out.labels = align(train.labels, held_out.labels)
    classes = len(train.labels.classes)
    counts = _shots(shots, int(np.bincount(train.labels.ids).max()))
    draw_labels(train, counts, draws, seed)  # complains before the work begins

    fabric = make_fabric(device, run.recipe["precision"])
    spec, scores = run.spec, []
    torch.manual_seed(seed + 1)
    kinds = {run.task: encoder, "untrained": run.fresh_encoder(), "raw pixels": torch.nn.Flatten()}
    for name, module in kinds.items():
        kept, features = extract(module, train, spec, fabric.device, quiet)
        seen, test_features = extract(module, held_out, spec, fabric.device, quiet)
        readable = train.take(kept)
        assert readable.labels is not None
        chosen = draw_labels(readable, counts, draws, seed)
        truth = held_out.labels.ids[seen]
        scores += read_features(
            name, features, test_features, readable.labels.ids, truth, classes, chosen, protocols
        )  # fmt: skip
    given = run.recipe["task"]["hyperparameters"]
    options = {key: given[key] for key in Supervised.hyperparameters().keys() & given.keys() - {"classes"}}
    trained: dict[str, Callable[[], Task]] = {}
    if scratch:
        trained["from scratch"] = lambda: Supervised(run.fresh_encoder(), classes=classes, **options)
    if semi:
        own = run.task in TASKS and not find_task(run.task).needs_labels
        pretext = {"pretext": run.task, "options": given} if own else {}
        trained["s4l"] = lambda: S4L(run.fresh_encoder(), classes=classes, tile=False, **options, **pretext)
    pool = opened.take(np.concatenate([numbers[kept], unlabelled]))  # the draws are numbers of its first part
    for name, make in trained.items():
        scores += train_on_draws(name, make, pool, held_out, chosen, spec, fabric, seed, quiet)
    about: dict[str, Any] = {
        "run": str(run.folder), "task": run.task, "encoder": run.encoder_name, "classes": classes, "draws": draws,
        "seed": seed, "data": {"name": train.name, "samples": len(readable)},
        "test": {"name": held_out.name, "samples": len(seen), "held out": test is None},
        "unreadable": len(train) - len(readable) + len(held_out) - len(seen),
        "majority": float(np.bincount(truth).max() / len(truth)),
        "protocols": {
            "linear": "logistic regression on standardised features, penalty by cross-validation on the drawn labels",
            "knn": "cosine, weighted votes, k by leave-one-out on the drawn labels",
            "trained": "AdamW 0.001, batch up to 64, 30 passes, 200 to 600 steps, the views of the run; "
            "s4l: 400 steps of 64 samples and 64 labelled ones, all upright, with the pretext of the run",
        },
    }  # fmt: skip
    return Evaluation(about, tuple(scores))


def _shots(shots: str | Sequence[int | None] | None, most: int) -> list[int | None]:
    if shots is None:
        return [*(count for count in (1, 5, 10, 50) if count <= most), None]
    if not isinstance(shots, str):
        return list(shots)
    counts: list[int | None] = []
    for text in shots.split(","):
        if text.strip() != "all" and not (text.strip().isdecimal() and int(text) > 0):
            raise UserError(f"--shots takes numbers above 0 and 'all', separated by commas, not {shots!r}")
        counts.append(None if text.strip() == "all" else int(text))
    return counts


def _labelled(source: Source, option: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the numbers of the samples that have a label, and of those that have none."""
    import numpy as np

    if source.labels is None or not (source.labels.ids >= 0).any():
        raise UserError(
            f"{source.name} has no labels: give {option} folders, a CSV file (path,label) or an .npz file with y"
        )
    return np.flatnonzero(source.labels.ids >= 0), np.flatnonzero(source.labels.ids < 0)
