"""`start`: look at the data, propose what to do with them, and on request do it. Imports torch only when called."""

from __future__ import annotations

import hashlib
import importlib
import os
import shlex
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console, Group
from rich.text import Text

from selfsup.base.checks import check_data_numbers, check_new_folder, check_numbers
from selfsup.base.printing import Copied, Indented, Printable, fitting
from selfsup.commands.given import Target
from selfsup.errors import UserError

if TYPE_CHECKING:
    from selfsup.source import Source

LOOKED_AT = 1000  # samples, drawn at random
HEARD = 10  # seconds of a recording, from its beginning
SMALL = 64  # pixels a side up to which a small encoder keeps up with a large one in minutes
FEW = 200  # samples below which pretraining learns little
SHOWN = 3  # broken samples


class Proposal(NamedTuple):
    """A task for a kind of data and why it is a good start, with its encoders for small and large samples."""

    task: str
    options: dict[str, Any]
    small: str
    large: str
    why: str


PROPOSALS = {
    "image": Proposal(
        "simclr", {"min_scale": 0.5}, "convnet", "resnet18",
        "of all tasks the best on small images in the same minutes (docs/results.md); crops keep half of an image",
    ),
    "video": Proposal("shuffle_learn", {}, "convnet", "resnet18", "the order of frames is a free label"),
    "audio": Proposal("byola", {}, "audio-cnn", "resnet18", "one sound, changed in two ways, needs no large batches"),
    "trajectory": Proposal(
        "stdim", {}, "convnet", "resnet18", "what follows what is a free label, without actions or rewards"
    ),
    "text": Proposal("bert", {}, "bert-tiny", "bert-mini", "it needs nothing but the texts, and learns in minutes"),
}  # fmt: skip


class Step(NamedTuple):
    """A command with its arguments."""

    command: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]

    def __str__(self) -> str:
        words = ["selfsup", self.command, *map(str, self.arguments)]
        for name, value in self.options.items():
            flag = f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}"
            words += [flag, f"{value:g}" if isinstance(value, float) else str(value)]
        return shlex.join(words)

    def run(self, quiet: bool) -> Any:
        """Run it and return what it found; labels that were written into a list to fill in stay."""
        if self.command == "suggest" and (there := Path(self.options["out"])).exists():
            return f"{there} is there already, and stays as it is"
        function = getattr(importlib.import_module(f"selfsup.commands.{self.command}"), self.command)
        return function(*self.arguments, **self.options, **({} if self.command == "show" else {"quiet": quiet}))


@dataclass(frozen=True, repr=False)
class Started(Printable):
    """What is known of the data, what is proposed and why, the commands, `done` or not, and what to do `then`."""

    facts: tuple[str, ...]
    reasons: tuple[str, ...]
    commands: tuple[str, ...]
    done: bool
    then: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain values."""
        return asdict(self)

    def __rich__(self) -> Group:
        head = "Done; the same commands resume, or show what is there" if self.done else "Commands (--go runs them)"
        parts: list[Any] = [Text("The data"), *map(Indented, self.facts)]
        parts += [Text("\nProposed"), *map(Indented, self.reasons)]
        parts += [Text(f"\n{head}"), *map(Copied, self.commands)]
        if self.then:
            what, command = self.then
            parts += [Text("\nThen"), Indented(what), Copied(command)]
        return Group(*parts)


def start(
    data: Target,
    /,
    *,
    labels: str | None = None,
    minutes: float | None = None,
    out: Target = "runs/start",
    go: bool = False,
    seed: int = 0,
    device: str = "auto",
    quiet: bool = False,
    **options: Any,
) -> Started:
    """Look at your data, propose a task, an encoder and a time, with reasons, and print the commands; --go runs them.

    They show the views, pretrain, choose the samples to label first (or, with labels, label the rest), and write a
    report. Called again with --go it resumes.

    Args:
        data: A folder of images, videos, sounds or texts, a list file, an .npz file or a name (such as mnist5k).
        labels: Labels that you already have: 'folders', a CSV file (path,label) or an .npz file with y.
        minutes: Minutes of pretraining, more than 0; by default 5 to 60, depending on the number of samples.
        out: The folder for the run, images, tables and report.
        go: Run the commands.
        seed: Seed of everything, at least 0.
        device: Where to compute: auto, cpu, cuda or mps.
        quiet: Hide progress.
        options: Options of the kind of data (size, channels; tokenizer).

    Raises:
        UserError: For data that cannot be opened or have too few samples, and for anything wrong with the arguments.
        RunFailed: If a command fails.
    """
    import numpy as np

    from selfsup.base.progress import counting
    from selfsup.data import make_spec
    from selfsup.data.open import open_data
    from selfsup.source import Broken
    from selfsup.spec.media import MOVING

    check_numbers(seed=seed)
    check_data_numbers(options)
    if minutes is not None:
        check_numbers(minutes=minutes)
    if not isinstance(data, str | os.PathLike):
        raise UserError("start takes the name of data; for arrays call pretrain, suggest, label and report")
    folder = Path(out)
    if go:
        check_new_folder(folder)
    source = open_data(data, labels)
    if len(source) < 2:
        raise UserError(f"{source.name} has {len(source)} sample: there is nothing to learn from")
    spec: Any = make_spec(source, **options)

    drawn = np.sort(np.random.default_rng(seed).permutation(len(source))[:LOOKED_AT])
    shapes: Counter[tuple[int, ...]] = Counter()
    seen: Counter[bytes] = Counter()
    broken: list[str] = []
    with counting("looking at the data", len(drawn), quiet) as advance:
        for index in drawn.tolist():
            try:
                of_spec = source.conform(spec)
                length = of_spec.extent(index)
                part = slice(0, None, -(-length // 8) or 1) if source.kind in MOVING else None
                part = slice(0, HEARD * spec.rate) if source.kind == "audio" else part
                sample = np.asarray(of_spec.read(index, part))
            except Broken as error:
                broken.append(f"{source.path(index)} ({error})")
            else:
                shapes[(length,) if source.kind == "audio" else sample.shape[-3:]] += 1
                seen[hashlib.sha256(sample.tobytes()).digest()] += 1
            advance(1)
    if not seen:
        raise UserError(f"none of {len(drawn):,} samples of {source.name} can be read, for example {broken[0]}")
    proposal, size = PROPOSALS[source.kind], int(getattr(spec, "size", 0))
    small = source.kind == "text" or size <= SMALL
    encoder = proposal.small if small else proposal.large
    asked = minutes if minutes is not None else float(min(60, max(5, round(len(source) / 1000))))
    facts = [f"{len(source):,} samples of {source.name}: {source.kind}; the encoder will see {spec.describe()}"]
    facts += _durations(shapes, spec) if source.kind == "audio" else _sizes(shapes)
    of = "" if len(drawn) == len(source) else f" of {len(drawn):,} looked at"
    if copies := sum(seen.values()) - len(seen):
        facts.append(f"{copies:,}{of} {'is a copy' if copies == 1 else 'are copies'} of another one")
    if broken:
        example = ", for example " if len(broken) > SHOWN else ": "
        facts.append(f"{len(broken):,}{of} cannot be read{example}{', '.join(broken[:SHOWN])}")
    facts.append(_labels(source, data, labels))
    facts += getattr(source, "notes", ())
    reasons = [
        f"{proposal.task}: {proposal.why}",
        f"{encoder}: " + ("small samples need no larger one" if small else f"for {spec.describe()}"),
        f"{asked:g} minutes: "
        + ("as asked" if minutes is not None else "a beginning for this many samples; longer is better"),
    ]
    if len(source) < FEW:
        reasons.append(
            f"{len(source):,} samples are few: weights from elsewhere (pretrain --pretrained) may be worth more"
        )
    if source.kind == "image":
        reasons.append("`selfsup compare` would find the task that suits these data best, in ten times the minutes")
    shared = ({"seed": seed} if seed else {}) | ({} if device == "auto" else {"device": device})
    steps = _steps(os.fspath(data), labels, proposal, encoder, asked, folder, shared, options)
    if go:
        folder.mkdir(parents=True, exist_ok=True)
        console = Console(stderr=True, markup=False, highlight=False, quiet=quiet)
        for place, step in enumerate(steps, 1):
            console.print(f"{place}/{len(steps)}  {step}", soft_wrap=True)
            found = step.run(quiet)
            shown = found if isinstance(found, str) else found.__rich__()
            console.print(fitting(shown), soft_wrap=isinstance(shown, str))
    then: tuple[str, ...] = ()
    if labels is None:
        filled = folder / "to-label.csv"
        again = {"labels": filled, "minutes": minutes, **options, **shared, "out": folder}
        given = {name: value for name, value in again.items() if value is not None}
        then = (
            f"fill in the column label of {filled} (to-label.png shows the samples), and label the rest:",
            f"{Step('start', (os.fspath(data),), given)} --go",
        )
    return Started(tuple(facts), tuple(reasons), tuple(map(str, steps)), go, then)


def _sizes(shapes: Counter[tuple[int, ...]]) -> list[str]:
    if len(shapes) == 1:
        return [f"all of {' × '.join(map(str, next(iter(shapes))))}"]
    axes = zip(*shapes, strict=True) if len({len(shape) for shape in shapes}) == 1 else ()
    ranges = [str(min(axis)) if min(axis) == max(axis) else f"{min(axis)} to {max(axis)}" for axis in axes]
    return [f"of {' × '.join(ranges)}"] if ranges else []


def _durations(shapes: Counter[tuple[int, ...]], spec: Any) -> list[str]:
    seconds = [count / spec.rate for (count,) in shapes]
    return [f"of {min(seconds):.3g} to {max(seconds):.3g} s"]


def _labels(source: Source, data: Any, labels: str | None) -> str:
    from selfsup.data.open import open_data

    if source.labels is not None and (source.labels.ids >= 0).any():
        given = int((source.labels.ids >= 0).sum())
        return f"{given:,} labels of {len(source.labels.classes)} classes"
    if labels is None:
        try:
            found = open_data(data, "folders").labels
        except UserError:
            found = None
        if found is not None and len(found.classes) > 1:
            names = ", ".join(found.classes[:3]) + (", …" if len(found.classes) > 3 else "")
            return f"no labels were given; if the folders are classes ({names}), give --labels folders"
    return "no labels yet: fifteen are a good beginning, and `suggest` says of which samples"


def _steps(
    data: Any,
    labels: str | None,
    proposal: Proposal,
    encoder: str,
    minutes: float,
    folder: Path,
    shared: dict[str, Any],
    options: dict[str, Any],
) -> list[Step]:
    """Return what to do, in order; `shared` are seed and device."""
    run, given = str(folder / "run"), {} if labels is None else {"labels": labels}
    steps = [
        Step("show", (proposal.task, data), {**proposal.options, **options, "out": str(folder / "views.png")}),
        Step(
            "pretrain", (data,),
            {
                "task": proposal.task, **proposal.options, "encoder": encoder, "minutes": minutes, **options, **shared,
                "out": run,
            },
        ),
    ]  # fmt: skip
    if labels is None:
        files = {"out": str(folder / "to-label.csv"), "sheet": str(folder / "to-label.png")}
        steps.append(Step("suggest", (run, data), {"n": 15, **shared, **files}))
    else:
        steps.append(Step("label", (run, data), {**given, **shared, "out": str(folder / "all.csv")}))
    return [*steps, Step("report", (run,), {"data": data, **given, **shared, "out": str(folder / "report.html")})]
