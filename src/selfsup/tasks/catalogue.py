"""The catalogue: every task with its section, paper, options, and what a user needs to choose one."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group
from rich.table import Table
from rich.text import Text

from selfsup.base.options import Option
from selfsup.base.printing import Printable
from selfsup.tasks import TASKS, find_task
from selfsup.tasks.options import options

if TYPE_CHECKING:
    from selfsup.task import Task


SECTIONS = {  # in the survey's order: when to take a task of it
    "baselines": "to know what the labels alone give",
    "images: distortion": "images with a natural up and down; cheap, and sound with few images and small batches",
    "images: patches": "images of at least 64 pixels whose parts have places: objects, scenes; run `selfsup audit`",
    "images: colorization": "colour images in which a thing's colour tells what it is; not for grey ones",
    "images: generative": "any images; small ones best; also for reconstructions, samples and filled holes",
    "images: contrastive": "many images, large batches, and changes of view that leave the class alone",
    "images: clustering": "many images of classes about equally frequent",
    "images: distillation": "many images; small batches will do; watch for collapse",
    "images: masked": "very many images, a vision transformer and long training; fine-tune afterwards",
    "images: metadata": "images of which a table says more: where, when and by which device they were taken",
    "semi-supervised": "few labels are there already, and the classifier is all that is wanted",
    "video: tracking": "videos in which several things move; for telling things apart, and the same one later",
    "video: order": "videos in which things move and time has a direction; run `selfsup audit`",
    "video: colorization": "colour videos; for following things through a video",
    "video: masked": "very many videos, a vision transformer and long training; fine-tune afterwards",
    "control: correspondence": "recordings of several cameras, or of slow motions by one; for imitation and rewards",
    "control: objects": "recordings of what was taken from a scene; for finding it again, and where it lies",
    "control: rewards": "recordings of something that acts and is rewarded, among things that do not matter for it",
    "control: actions": "recordings whose actions are known; a baseline that needs no rewards",
    "control: crops": "recordings without actions and rewards; to begin with for agents that act by pixels",
    "control: goals": "recordings of random actions, from which one is to learn to reach what can be imagined",
    "control: time": "recordings of games or robots, without actions and rewards; places stay where they are",
    "text": "texts",
    "audio": "recordings: speech, music, noises",
    "control": "episodes of what acts or is filmed by several cameras: robots, games, simulators",
}


@dataclass(frozen=True, repr=False)
class Entry(Printable):
    """One task: its section in the survey, paper, kind of data, description, and options.

    `facts` are when to use it, its encoders and batch size, the published figure, its counter-measures to shortcuts,
    and how it deviates from the paper.
    """

    name: str
    section: str
    paper: str
    kind: str
    text: str
    options: dict[str, Option]
    facts: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """Return the same as plain values; each option has its default, range (None: any) and help."""
        options = {
            name: {"default": option.default, "range": option.range and option.range.text, "help": option.help}
            for name, option in self.options.items()
        }
        return self.__dict__ | {"options": options}

    def __rich__(self) -> Group:
        table = Table(title="options", title_justify="left")
        for column in ("option", "default", "range", "what it is"):
            table.add_column(column)
        for name, option in self.options.items():
            default = "automatic" if option.default is None else str(option.default)
            table.add_row(_flag(name), default, option.range.text if option.range else "", option.help)
        facts = Table(show_header=False, box=None, pad_edge=False)
        for fact, words in self.facts.items():
            facts.add_row(fact, words)
        heading = f"{self.name} · {self.section} · {self.paper or 'no paper'}\n"
        parts = _PARTS.sub("", self.text).strip().split("\n\n")
        about = "\n\n".join(" ".join(part.split()) for part in parts)  # the width is the terminal's
        return Group(heading, about, "", facts, "", table)


class Catalogue(Printable, list[Entry]):
    """All tasks, by section."""

    def as_json(self) -> list[dict[str, Any]]:
        """Return the same as plain values."""
        return [entry.as_json() for entry in self]

    def __rich__(self) -> Lines:
        return Lines(self)


class Lines:
    """A line for each task, as wide as the console: the paper goes first where it is narrow, then the end."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        section, names = "", max(len(entry.name) for entry in self.entries) + 4
        for entry in self.entries:
            if entry.section != section:
                section = entry.section
                yield Text(f"\n{section}")
            what, room = _YEAR.sub("", entry.text.splitlines()[0]), options.max_width - names
            whole = f"{what} {entry.paper}".rstrip()
            told = whole if cell_len(whole) <= room else shorten(what, room, placeholder=" …")
            yield Text(f"  {entry.name:{names - 2}}{told}")
        yield Text("\nAll about one, with its options: selfsup tasks NAME")


def catalogue() -> Catalogue:
    """Return every task, in the order of the sections."""
    order = list(SECTIONS)
    return Catalogue(sorted(map(entry, TASKS), key=lambda entry: (order.index(entry.section), entry.name)))


def entry(name: str) -> Entry:
    """Return one task."""
    task = find_task(name)
    text, _, _ = inspect.cleandoc(task.__doc__ or "").partition("\nArgs:\n")  # the table of options says it
    return Entry(name, task.section, task.paper, task.kind, text.strip(), options(task), _facts(task, text))


_YEAR = re.compile(r" \([^()]*\b(19|20)\d\d\b[^()]*\)")  # the paper has a column of its own
_PARTS = re.compile(r"(Published|Deviations):\s(.*?)(?=\n\n|\nPublished: |\nDeviations: |\Z)", re.DOTALL)


def _facts(task: type[Task], text: str) -> dict[str, str]:
    facts = {
        "when": SECTIONS.get(task.section, ""),
        "encoder": f"{task.default_encoder}; small: {task.small_encoder}",
        "batch": str(task.defaults.get("batch_size", 128)) + ("; its samples are compared" if task.coupled else ""),
    }
    facts |= {part.lower(): " ".join(words.split()) for part, words in _PARTS.findall(text)}
    if task.counters:
        facts["counter-measures"] = "; ".join(f"{cue}: {_words(options)}" for cue, options in task.counters.items())
    return {fact: words for fact, words in facts.items() if words}


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _words(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in options.items())
