"""`evaluate`: few-label accuracy beside its baselines. Imports torch only when it is called."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from selfsup.base.checks import check_new_file, check_numbers
from selfsup.base.notes import say
from selfsup.base.paths import user_path
from selfsup.commands.given import Data, LabelsGiven, Names, Target
from selfsup.errors import RunFailed, UserError, unknown
from selfsup.run import Run
from selfsup.runs import Runs, open_runs

COMPARED = ("alignment", "objects")  # targets without draws of labels

if TYPE_CHECKING:
    from torch import nn

    from selfsup.data.annotations import AnnotationsGiven
    from selfsup.data.masks import MasksGiven
    from selfsup.evaluation.alignment import Alignment
    from selfsup.evaluation.few_labels import Classifier
    from selfsup.evaluation.frozen import FrozenEncoder
    from selfsup.evaluation.result import Evaluation
    from selfsup.evaluation.taken import Objects
    from selfsup.source import Annotations, Labels, Source

    RunName = str | os.PathLike[str] | Run | Runs | Sequence[str | os.PathLike[str] | Run]
    Labelling = LabelsGiven | Annotations | MasksGiven
    Numbers = str | Sequence[int | None]
else:
    RunName = Numbers = Labelling = str  # what the command line can give


def evaluate(
    run: RunName,
    /,
    *,
    data: Data,
    test: Data | None = None,
    labels: Labelling | None = None,
    test_labels: Labelling | None = None,
    columns: str | None = None,
    target: str = "classes",
    groups: LabelsGiven | None = None,
    shots: Numbers | None = None,
    protocol: Names | None = None,
    metrics: Names = "",
    draws: int = 5,
    scratch: bool = True,
    semi: bool = False,
    reference: str | None = None,
    sheet: Target | None = None,
    seed: int = 0,
    device: str = "auto",
    quiet: bool = False,
) -> Evaluation | Alignment | Objects:
    """Measure what an encoder is worth with few labels, beside its baselines.

    A linear probe, nearest neighbours and label propagation read the frozen features of the run's encoder, those of the
    same encoder untrained (and of the weights that it began with, where those were trained), the raw pixels and their
    principal components; the same encoder is trained from scratch on
    the same labels, with and without pseudo-labels. Samples without a label serve what can use them, and are never
    measured on. Whatever a protocol chooses, it chooses on the drawn labels; the test part is only measured on. Data
    other than those of pretraining show how well the encoder transfers. With `--target frames` the labels are inside of
    videos or sounds, frames are read, and all frames of a sample are on one side of the split; with `--target states`
    the state of an environment is read off single observations, and all of an episode are on one side; with `--target
    masks` each place of an image has a class, which is read off patch features with few labelled images. The result is
    also saved as evaluation.json in the run folder, where `report` finds it. See docs/evaluation.md and docs/dense.md.

    Args:
        run: A finished run folder, or one with the runs of several seeds (pretrain --seeds; in Python also a list of
            runs): intervals are over seeds and draws then, and what does not depend on the runs is trained once.
        data: Labelled data, from which the labels are drawn.
        test: Labelled data to measure on; by default a fifth of every class of the data, set aside first. Where that
            is fewer than 50 samples a class, every fifth is measured on in turn (cross-validation).
        labels: Where the labels of the data are: 'folders', a CSV file (path,label) or an .npz file with y. For frames:
            a CSV file (path,start,end,label; in seconds) or a folder of Praat TextGrids; for masks a folder of label
            images, named as the images; by default those that the data bring.
        test_labels: Where the labels of the test data are, in the same forms.
        columns: The columns of a label file, path=COLUMN,label=COLUMN, where they are called otherwise. For frames also
            start=COLUMN,end=COLUMN; of TextGrids the tier, tier=NAME, the first one of intervals by default.
        target: The kind of labels: classes, numeric (one number per sample, measured by R²), multi (several labels per
            sample, written a|b|c, measured by average precision), frames (a class at each time inside of a sample),
            masks (a class at each place of an image, measured by the mean intersection over union) or states (the state
            variables that episodes bring: R² of numbers, F1 of classes, of each). Without shots: alignment (of the
            cameras of episodes, in time) and objects (which one was taken from a scene).
        groups: For frames, what each sample belongs to that must not be on both sides of the split, such as its
            speaker: in the forms of the labels of samples, or 'labels' for those that the data bring. Each group is
            measured on in turn.
        shots: Numbers of labels per class, each at least 1, and 'all', separated by commas; by default
            1,2,5,10,20,50,100,all as far as there are enough labels. For numeric, multi, frames and states they count
            labelled samples or frames, at least 2; for masks labelled images, by default 1,2,5,10.
        protocol: Protocols, separated by commas: linear, knn, propagate (labels spread over a graph of all training
            samples), transductive (test samples in that graph), attentive (for encoders with tokens) and finetune;
            linear,knn,propagate by default. For numeric and multi only linear, for frames and masks linear and knn.
        metrics: Further metrics of the test features, separated by commas: retrieval, clustering and label-free; none
            by default, and none of frames, masks and states.
        draws: How many times the labels are drawn, at least 2; with cross-validation at least once for each fifth.
        scratch: Also train from scratch, on the drawn labels alone, and again on pseudo-labels of all training samples
            (self-training); this takes long. Only where labels are classes of samples.
        semi: Also train s4l, on the drawn labels and on all other training samples without their labels, including
            those that never had one, with the pretext of the run if it can be a part of s4l, else rotation; this takes
            the longest.
        reference: A timm model whose pretrained weights are on this machine, as one more baseline.
        sheet: For masks, the image to write of some test images: patch features in colours, true and predicted masks;
            by default masks.png in the run folder.
        seed: Seed of the draws, of the split and of the baselines, at least 0.
        device: Where to compute: auto, cpu, cuda or mps.
        quiet: Hide progress.

    Raises:
        UserError: For labels that are missing, all of one class, or fewer than asked for.
    """
    asked = dict(locals())  # every argument
    run = open_runs(asked.pop("run"))
    if isinstance(run, Runs):
        return _of_seeds(run, asked)
    if target in COMPARED:
        others = {
            "test": test, "groups": groups, "shots": shots, "protocol": protocol, "metrics": metrics or None,
            "reference": reference, "sheet": sheet, "semi": semi or None,
            "labels": labels if target == "alignment" else None,
        }  # fmt: skip
        for name in (name for name, value in others.items() if value is not None):
            raise UserError(f"--{name} is not for --target {target}: leave it out")
        check_numbers(seed=seed)
        return _compared(run, target, data, (columns, labels), seed, device)

    from selfsup.data.labels import name_columns
    from selfsup.data.open import open_data
    from selfsup.evaluation.evaluators import EVALUATORS
    from selfsup.evaluation.extra_metrics import EXTRA_METRICS
    from selfsup.evaluation.frame_parts import make_frame_parts
    from selfsup.evaluation.frame_probes import measure_frames
    from selfsup.evaluation.mask_parts import make_mask_parts
    from selfsup.evaluation.mask_probes import measure_masks
    from selfsup.evaluation.measuring import Sampling, measure
    from selfsup.evaluation.parts import labels_of, make_parts
    from selfsup.evaluation.reference import load_reference
    from selfsup.evaluation.state_parts import make_state_parts
    from selfsup.evaluation.state_probes import measure_states
    from selfsup.evaluation.targets import TARGETS, read_shots
    from selfsup.reports.dense import SHEET, save_masks
    from selfsup.train.device import make_fabric

    if target not in TARGETS:
        raise unknown("target", target, [*TARGETS, *COMPARED])
    wanted = TARGETS[target]
    known = [name for name, one in EVALUATORS.items() if target in one.targets]
    default = [name for name in known if EVALUATORS[name].default]
    known += ["finetune"] if wanted.by_class else []
    protocols = _names("protocol", default if protocol is None else protocol, known, target)
    if not protocols:
        raise UserError(f"--protocol names none; known: {', '.join(known)}")
    frames, masks, inside = target == "frames", target == "masks", target in ("frames", "masks", "states")
    extra = _names("metrics", metrics, [] if inside else list(EXTRA_METRICS), target)
    check_numbers(draws=draws, seed=seed)
    if semi and not wanted.by_class:
        raise UserError(f"--semi is for --target classes, not {target}")
    if reference is not None and inside and not masks:
        raise UserError(f"--reference is not for --target {target}: leave it out")
    if target == "states" and (labels is not None or test_labels is not None):
        raise UserError("--target states reads the states that the data bring: leave --labels out")
    if sheet is not None and not masks:
        raise UserError(f"--sheet is for --target masks, not {target}: leave it out")
    if masks and columns is not None:
        raise UserError("--columns is not for --target masks: leave it out")
    if groups is not None and (not frames or test is not None):
        why = "and --test are two ways to split the data: leave one out" if frames else "is for --target frames"
        raise UserError(f"--groups {why}")
    encoder = run.load()
    encoders = _encoders(run, encoder, seed)
    encoders += [load_reference(reference)] if reference is not None else []
    given: tuple[Any, ...] = name_columns(columns, labels, test_labels)
    fabric = make_fabric(device, run.recipe["precision"])
    if frames:
        sides = _annotated(data, given[0], groups), None if test is None else _annotated(test, given[1], None)
        cut = make_frame_parts(*sides, encoder, run.spec, _groups(sides[0], groups), seed)
        sampling = Sampling(read_shots(shots, wanted, cut.labels_to_draw()), draws, seed)
        result = measure_frames(
            run, encoders, cut, sampling, protocols=protocols, device=fabric.device, quiet=quiet
        )  # fmt: skip
    elif target == "states":
        states = make_state_parts(open_data(data), None if test is None else open_data(test), run.spec, seed)
        sampling = Sampling(read_shots(shots, wanted, states.labels_to_draw()), draws, seed)
        result = measure_states(run, encoders, states, sampling, device=fabric.device, quiet=quiet)
    elif masks:
        if sheet is not None:
            check_new_file(user_path(sheet))
        images = _masked(data, given[0]), None if test is None else _masked(test, given[1])
        labelled = make_mask_parts(*images, encoder, run.spec, seed)
        sampling = Sampling(read_shots(shots, wanted, labelled.labels_to_draw()), draws, seed)
        result, shown = measure_masks(
            run, encoders, labelled, sampling, protocols=protocols, device=fabric.device, quiet=quiet
        )  # fmt: skip
    else:
        parts = make_parts(open_data(data, given[0]), None if test is None else open_data(test, given[1]), wanted, seed)
        sampling = Sampling(read_shots(shots, wanted, parts.labels_to_draw()), draws, seed)
        if run.own and run.began_trained and (scratch or semi):
            say(f"from scratch and s4l are left out: {run.encoder_name} had trained weights; only you can make it anew")
            scratch = semi = False
        trained = {"finetune": "finetune" in protocols, "scratch": scratch and wanted.by_class, "semi": semi}
        classifiers = list(_classifiers(run, encoder, len(labels_of(parts.train).classes), **trained))
        result = measure(
            run, encoders, parts, sampling, protocols=protocols, metrics=extra, classifiers=classifiers,
            fabric=fabric, quiet=quiet,
        )  # fmt: skip
    with _although_read_only():
        if masks:
            save_masks(shown, run.folder / SHEET if sheet is None else user_path(sheet))
        result.save(run.folder / "evaluation.json")
    return result


def _of_seeds(runs: Runs, asked: dict[str, Any]) -> Evaluation:
    """Return the evaluation of runs of several seeds; rows that do not depend on pretraining are those of the first."""
    from selfsup.evaluation.seeds import over_seeds

    if asked["target"] in COMPARED:
        raise UserError(f"--target {asked['target']} is for one run, not for several seeds: give one of them")
    once = {"scratch": False, "semi": False, "reference": None}
    found: list[Any] = [evaluate(run, **(asked | once if number else asked)) for number, run in enumerate(runs)]
    result = over_seeds(found)
    if runs.folder is not None:
        with _although_read_only():
            result.save(runs.folder / "evaluation.json")
    return result


@contextlib.contextmanager
def _although_read_only() -> Iterator[None]:
    """Say that a run folder may only be read: the numbers are worth more than the note."""
    try:
        yield
    except RunFailed as error:
        say(str(error))


def _compared(
    run: Run, target: str, data: Data, labels: tuple[str | None, Any], seed: int, device: str
) -> Alignment | Objects:
    """Return what encoders find among the cameras, or the objects, of episodes."""
    from selfsup.data.labels import name_columns
    from selfsup.data.open import open_data
    from selfsup.evaluation.alignment import measure_alignment
    from selfsup.evaluation.taken import measure_objects
    from selfsup.spec import TrajectorySpec
    from selfsup.train.device import make_fabric

    source, spec = open_data(data, *name_columns(*labels)), run.spec
    if not isinstance(spec, TrajectorySpec):
        raise UserError(f"--target {target} is for encoders of episodes, not of {spec.samples}")
    encoders, where = _encoders(run, run.load(), seed), make_fabric(device, run.recipe["precision"]).device
    if target == "alignment":
        return measure_alignment(run.task, encoders, source, spec, seed=seed, device=where, folder=run.folder)
    camera = run.recipe["task"]["hyperparameters"].get("object_camera", "object")
    return measure_objects(
        run.task, encoders, source, spec, camera=camera, seed=seed, device=where, folder=run.folder
    )  # fmt: skip


def _encoders(run: Run, encoder: nn.Module, seed: int) -> list[FrozenEncoder]:
    """Return the encoder of a run and, as baselines, untrained ones: with its task's own layers too, if it has some."""
    import torch

    from selfsup.evaluation.frozen import FrozenEncoder

    start = seed + 1 + int(run.recipe["plan"]["seed"])  # runs of other seeds stand beside other untrained encoders
    torch.manual_seed(start)
    found = [FrozenEncoder(run.task, encoder, run.spec)]
    if not run.own:  # only the user knows how to make their own module anew
        found.append(FrozenEncoder("untrained", run.fresh_encoder(), run.spec, untrained=True))
    if (began := run.load_start()) is not None:
        found.append(FrozenEncoder("frozen start", began, run.spec, untrained=not run.began_trained))
    if (own := _other_representation(run, start)) is not None:
        found.append(FrozenEncoder(f"untrained {run.task}", own, run.spec, untrained=True))
    return found


def _annotated(data: Data, labels: AnnotationsGiven | None, groups: LabelsGiven | None) -> Source:
    """Return the data with labels inside of samples, and with groups as their labels where they are not their own."""
    from selfsup.data.annotations import with_annotations
    from selfsup.data.open import open_data

    own = groups is None or (isinstance(groups, str) and groups == "labels")
    source = open_data(data, None if own else groups)
    return source if labels is None else with_annotations(source, labels)


def _masked(data: Data, labels: MasksGiven | None) -> Source:
    """Return images with the masks that are given, or those that they bring."""
    from selfsup.data.masks import with_masks
    from selfsup.data.open import open_data

    source = open_data(data)
    return source if labels is None else with_masks(source, labels)


def _groups(source: Source, groups: LabelsGiven | None) -> Labels | None:
    if groups is not None and source.labels is None:
        raise UserError(f"--groups labels: {source.name} brings no labels; give 'folders' or a CSV file (path,label)")
    return None if groups is None else source.labels


def _other_representation(run: Run, seed: int) -> nn.Module | None:
    """Return the untrained representation of a task that keeps more than the encoder, or another one; else None."""
    import torch

    torch.manual_seed(seed)
    task = run.fresh_task()
    kept: Any = None if task is None else task.representation()
    return None if kept is None or type(kept) is type(run.fresh_encoder()) else kept


def _classifiers(
    run: Run, encoder: nn.Module, num_classes: int, *, finetune: bool, scratch: bool, semi: bool
) -> Iterator[Classifier]:
    """Yield the classifiers that are trained whole, with the views of the run where its task has their options."""
    from selfsup.evaluation.few_labels import Classifier
    from selfsup.tasks.parts import find_part
    from selfsup.tasks.semi.s4l import S4L
    from selfsup.tasks.semi.supervised import Supervised

    given = run.recipe["task"]["hyperparameters"]
    options = {key: given[key] for key in Supervised.hyperparameters().keys() & given.keys() - {"num_classes"}}
    if finetune:

        def pretrained() -> Any:
            return copy.deepcopy(encoder).cpu().requires_grad_(True)

        yield Classifier(
            run.task, "finetune",
            lambda: Supervised(pretrained(), num_classes=num_classes, **options),
        )  # fmt: skip
    if scratch:

        def fresh() -> Any:
            return Supervised(run.fresh_encoder(), num_classes=num_classes, **options)

        yield Classifier("from scratch", "trained", fresh, taught="from scratch + pool")
    if semi:
        pretext: dict[str, Any] = {}  # rotation, where the task cannot be a part of s4l or is about the run's samples
        with contextlib.suppress(UserError):
            if not find_part(run.task).keeps_samples:
                pretext = {"pretext": run.task, "options": given}
        yield Classifier(
            "s4l", "trained",
            lambda: S4L(run.fresh_encoder(), num_classes=num_classes, rotate_labelled=False, **options, **pretext),
        )  # fmt: skip


def _names(option: str, given: str | Sequence[str], known: Sequence[str], target: str) -> tuple[str, ...]:
    names = [name.strip() for name in given.split(",")] if isinstance(given, str) else list(given)
    for name in (names := [name for name in dict.fromkeys(names) if name]):
        if name not in known:
            raise unknown(f"{option} of --target {target}", name, known)
    return tuple(names)
