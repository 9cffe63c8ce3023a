"""What `--help` prints: all commands, or one with its options in groups, the most common ones first, and examples."""

from __future__ import annotations

import inspect
import os
import shutil
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

WIDEST = 100  # columns: longer lines are hard to read
INDENT = 24  # columns before the text of an option
SECTIONS = {  # the commands by what they are for
    "To begin": ("demo", "start", "tasks", "show", "doctor"),
    "To train": ("pretrain", "adapt", "compare", "audit", "replay"),
    "To measure": ("evaluate", "report"),
    "To label": ("suggest", "label"),
    "To use an encoder": ("embed", "search", "explore", "index", "curate", "export", "push"),
    "For large data": ("pack", "bench"),
    "For robots and games": ("record", "control"),
}
GROUPS = {  # of a command's own options; those that are in none are the most common, and come first
    "Training": (
        "until", "batch_size", "micro_batch", "optimizer", "lr", "weight_decay", "warmup", "clip", "low_res_first",
        "block", "drop_tokens", "layer_decay", "l2_sp", "lora", "pretrained", "weights", "init", "recalibrate",
    ),
    "Watching": ("probe", "probe_labels", "probe_reader", "probe_every"),
    "Logging and hardware": (
        "workers", "cache", "precision", "grad_checkpointing", "shard_weights", "device", "log", "quiet",
    ),
}  # fmt: skip
LAST = "Logging and hardware"
SMALL = 12  # options of a command that are not in groups, at most
EXAMPLES = {
    "demo": ("demo", "demo --epochs 2 -o runs/quick"),
    "start": ("start photos/", "start photos/ --labels few.csv --go"),
    "tasks": ("tasks", "tasks simclr"),
    "show": (
        "show rotation photos/ -o labels.png", "show simclr photos/ --min-scale 0.2", "show photos/ --views overhead",
    ),
    "pretrain": (
        "pretrain photos/ --task rotation --minutes 30 -o runs/mine",
        "pretrain photos/ --task simclr --encoder vit --epochs 100 --seeds 3",
        "pretrain photos/ --task simclr --help    # its own options too",
    ),
    "adapt": (
        "adapt photos/ --encoder vit_small_patch14_dinov2 --labels few.csv",
        "adapt photos/ --encoder resnet50 --weights resnet50.pth --epochs 10",
    ),
    "audit": ("audit relative_position photos/", "audit jigsaw photos/ --minutes 5 -o cues.png"),
    "evaluate": (
        "evaluate runs/mine --data photos/ --labels labels.csv",
        "evaluate runs/mine --data photos/ --labels folders --shots 1,5",
    ),
    "compare": ("compare photos/ --tasks rotation,simclr --labels few.csv --minutes 60",),
    "embed": ("embed runs/mine photos/ -o photos.parquet", "embed runs/mine photos/ --shard 3/16 -o parts/"),
    "index": ("index photos.parquet -o index/", "index parts/ --approximate -o index/"),
    "search": ("search photos.parquet photos/cat.jpg -k 20 -o found.png",),
    "curate": ("curate photos.parquet -n 100000 -o subset.txt",),
    "explore": ("explore photos.parquet --data photos/",),
    "export": ("export runs/mine --format timm", "export runs/mine --format onnx -o encoder.onnx"),
    "bench": ("bench views photos/ --size 224",),
    "replay": ("replay runs/mine --step 4211 -o step.png",),
    "report": ("report runs/mine --data photos/ --labels labels.csv -o report.html",),
    "suggest": ("suggest runs/mine photos/ -n 15 -o to-label.csv --sheet to-label.png",),
    "label": ("label runs/mine photos/ --labels few.csv -o all.csv", "label runs/mine photos/"),
    "record": ("record CartPole-v1 -o recordings/cartpole --episodes 200",),
    "pack": ("pack photos/ -o shards/ --labels folders",),
    "control": ("control rig PointRoom", "control curl SwingUp --seeds 3"),
    "push": ("push runs/mine user/photos-rotation", "push runs/mine user/photos-rotation --private"),
    "doctor": ("doctor", "doctor --json"),
}  # fmt: skip


class Line(NamedTuple):
    """An option, or an argument, with its value and its text; `group` is the heading under which it stands."""

    word: str
    text: str
    group: str


def width() -> int:
    """Return the columns that help may fill: those of the terminal, or COLUMNS, at most 100 unless COLUMNS says so."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return int(columns)
    return min(WIDEST, shutil.get_terminal_size().columns) if sys.stdout.isatty() else WIDEST


def overview(about: str, told: Mapping[str, str]) -> str:
    """Return the help of the whole program: `about` it, and a line of each command, by what they are for."""
    wide = width()
    lines = [f"usage: selfsup COMMAND [OPTIONS]\n\n{_paragraphs(about, wide)}"]
    for heading, names in SECTIONS.items():
        lines += [f"\n{heading}:", *(_row(Line(name, told[name], ""), wide, 12) for name in names)]
    examples = ("demo", "start photos/", "pretrain --help")
    return "\n".join([*lines, "\nExamples:", *(f"  selfsup {example}" for example in examples)])


def page(command: str, function: Callable[..., Any], lines: Iterable[Line]) -> str:
    """Return the help of one command: what it does, its arguments and options in groups, and examples."""
    wide, lines = width(), list(lines)
    parameters = inspect.signature(function).parameters.values()
    places = [p for p in parameters if p.kind is p.POSITIONAL_ONLY]
    words = [p.name.upper() if p.default is p.empty else f"[{p.name.upper()}]" for p in places]
    about = (inspect.getdoc(function) or "").partition("\nArgs:\n")[0].partition("\nRaises:\n")[0].strip()
    parts = [f"usage: {' '.join(['selfsup', command, *words])} [OPTIONS]", _paragraphs(about, wide)]
    groups = list(dict.fromkeys(line.group for line in lines))
    for group in sorted(groups, key=lambda name: name == LAST):  # which comes after the options of the task
        heading = group or ("Common options" if len(groups) > 1 else "Options")
        parts.append("\n".join([f"{heading}:", *(_row(line, wide, INDENT) for line in lines if line.group == group)]))
    parts.append("\n".join(["Examples:", *(f"  selfsup {example}" for example in EXAMPLES[command])]))
    return "\n\n".join(parts)


def own_lines(
    function: Callable[..., Any], said: Mapping[str, str], shown: Mapping[str, inspect.Parameter]
) -> list[Line]:
    """Return the arguments and the `shown` options of a command with their texts, options that are common first.

    The annotations of `shown` are types.
    """
    places = [p for p in inspect.signature(function).parameters.values() if p.kind is p.POSITIONAL_ONLY]
    first = [Line(p.name.upper(), said.get(p.name, ""), "") for p in places]
    group = {name: heading for heading, names in GROUPS.items() for name in names} if len(shown) > SMALL else {}
    lines = [
        Line(_word(p, p.annotation), _with_default(said[name], p), group.get(name, "")) for name, p in shown.items()
    ]
    order = ["", *GROUPS]
    return first + sorted(lines, key=lambda line: order.index(line.group))


def further_line(parameter: inspect.Parameter, text: str, group: str) -> Line:
    """Return an option of a task, or of a kind of data."""
    return Line(_word(parameter, parameter.annotation), _with_default(text, parameter), group)


def _word(parameter: inspect.Parameter, annotation: Any) -> str:
    """Return an option as it is given: --steps N, --lr X, --[no-]scratch, -o, --out OUT."""
    flag = parameter.name.replace("_", "-")
    if annotation is bool:
        return f"--[no-]{flag}" if parameter.default else f"--{flag}"
    parts = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    value = {int: "N", float: "X"}.get(parts[0], flag.rpartition("-")[2].upper())
    if typing.get_origin(annotation) is Literal:
        value = "{" + ",".join(map(str, typing.get_args(annotation))) + "}"
    short = "-o, " if parameter.name == "out" else f"-{flag}, " if len(flag) == 1 else ""
    return f"{short}--{flag} {value}"


def _with_default(text: str, parameter: inspect.Parameter) -> str:
    default = parameter.default
    if default is parameter.empty or default is None or default == "" or isinstance(default, bool):
        return f"{text} (default: yes)" if default is True else text
    return f"{text} (default: {default})"


def _row(line: Line, wide: int, indent: int) -> str:
    """Return an option with its text beside it, or below it where it is long or the page is narrow."""
    indent = indent if wide >= 2 * indent else 6
    texts = textwrap.wrap(line.text, wide - indent, break_on_hyphens=False) or [""]
    beside = f"  {line.word:{indent - 4}}  {texts[0]}" if len(line.word) <= indent - 4 else ""
    rest = texts[1:] if beside else texts
    return "\n".join([beside or f"  {line.word}", *(" " * indent + text for text in rest)]).rstrip()


def _paragraphs(text: str, wide: int) -> str:
    return "\n\n".join(
        textwrap.fill(" ".join(part.split()), wide, break_on_hyphens=False) for part in text.split("\n\n")
    )
