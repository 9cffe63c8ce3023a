"""The candidates: the tasks that were asked for with their options, and why others are left out."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from selfsup.errors import UserError
from selfsup.evaluation.baselines import baseline_names
from selfsup.source import Source
from selfsup.task import Task
from selfsup.tasks import TASKS, find_task
from selfsup.tasks.resolve import resolve_task

BASELINES = (*baseline_names(), "untrained", "from scratch")
SPEC = re.compile(r"\s*([^,()]+?)\s*(?:\(([^()]*)\))?\s*(?:,|$)")


@dataclass(frozen=True)
class Candidate:
    """A task by name or class, and the options that were given to it; `name` is its name in the table."""

    name: str
    task: str | type[Task]
    options: dict[str, Any]

    @property
    def task_class(self) -> type[Task]:
        """The class of the task."""
        return find_task(self.task) if isinstance(self.task, str) else self.task

    @property
    def folder(self) -> str:
        """The name of its run folder: `name` without characters that do not belong there."""
        return re.sub(r"[^\w.=-]+", "-", self.name).strip("-.")


def find_candidates(
    tasks: str | Sequence[str | type[Task]], source: Source
) -> tuple[dict[str, Candidate], dict[str, str]]:
    """Return the candidates by name, and for those that cannot take part the reason.

    `tasks`: names of the registry or module:Class, with options in brackets where wanted, separated by commas
    (`rotation(flip=0,pad=3)`); classes; or `all`, every task for the data's kind, of which those that cannot be set
    up are left out. Raises `UserError` for unknown names and options and for duplicates.
    """
    texts = [tasks] if isinstance(tasks, str) else list(tasks)
    wanted: list[Candidate] = []
    offered: list[str] = []  # through `all`
    for text in texts:
        if not isinstance(text, str):
            wanted.append(Candidate(text.__name__, text, {}))
        elif text.strip() == "all":
            offered += [name for name in TASKS if source.kind in (find_task(name).kind, *find_task(name).also)]
            wanted += [Candidate(name, name, {}) for name in offered]
        else:
            wanted += _parse(text)
    if not wanted:
        raise UserError("--tasks names no task; `selfsup tasks` lists them, or give all")
    found: dict[str, Candidate] = {}
    left_out: dict[str, str] = {}
    folders = set()
    for candidate in wanted:
        if candidate.folder in folders or candidate.name in BASELINES:
            raise UserError(f"--tasks names {candidate.name!r} twice, or it is the name of a baseline")
        folders.add(candidate.folder)
        task_class = candidate.task_class
        if task_class.needs_labels:
            left_out[candidate.name] = "it needs labels, which the comparison keeps for measuring"
        elif not task_class.takes(source.kind):
            left_out[candidate.name] = f"it is for {task_class.kind}, not {source.kind}"
        else:
            try:
                resolve_task(candidate.task, source, candidate.options)
            except UserError as error:
                if candidate.name not in offered:
                    raise
                left_out[candidate.name] = str(error)
                continue
            found[candidate.name] = candidate
    return found, left_out


def _parse(text: str) -> list[Candidate]:
    candidates, place = [], 0
    while place < len(text):
        match = SPEC.match(text, place)
        if match is None:
            raise UserError(f"--tasks takes names separated by commas, options in brackets: a,b(flip=0), not {text!r}")
        name, options = match[1], (match[2] or "").replace(" ", "")
        given = dict(_option(name, part) for part in options.split(",") if part)
        shown = name.rpartition(":")[2] + (f"({options})" if options else "")
        candidates.append(Candidate(shown, name, given))
        place = match.end()
    return candidates


def _option(task: str, text: str) -> tuple[str, Any]:
    key, equals, written = text.partition("=")
    key = key.replace("-", "_")
    if not equals or not written:
        raise UserError(f"an option of {task} is written name=value, not {text!r}")
    try:
        value: Any = ast.literal_eval(written)
    except (ValueError, SyntaxError):
        value = written
    parameter = find_task(task).hyperparameters().get(key)
    if parameter is None:
        return key, value
    wanted = float if parameter.annotation == float | None else type(parameter.default)
    if wanted is float and type(value) is int:
        value = float(value)
    if wanted in (int, float, str) and type(value) is not wanted:
        raise UserError(f"{task}: {key} takes {wanted.__name__}, not {written!r}")
    return key, value
