"""Results as files: a line of JSON a run, intervals over runs and draws, and the tables of docs/ made of them.

    python benchmarks/results.py        # after a file in docs/results/ has changed

Benchmarks append what `record` returns to the file that they are given. Those that docs/ show lie in docs/results/. On
a page, the table below a line such as `<!-- results: methods mnist5k.jsonl -->` is what the function `table` of that
benchmark makes of these files; a test compares.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from selfsup.commands.doctor import processor
from selfsup.evaluation.draws import crossed
from selfsup.evaluation.result import Evaluation
from selfsup.run import Run
from selfsup.spec import ImageSpec

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
FILES = DOCS / "results"
MARKED = re.compile(r"^(<!-- results: (\w+) ([^>]+?) -->\n)(?:\n(?:\|.*\n)+)?", re.MULTILINE)
Record = dict[str, Any]
Scores = dict[str, dict[str, list[float]]]  # "representation, reader": {labels per class: one for each draw}


def record(run: Run, evaluation: Evaluation | None, data: str, name: str, **measured: Any) -> Record:
    """Return what there is to say of one run: scores by representation, reader and labels, one for each draw."""
    plan = run.recipe["plan"]
    found = {
        "data": data, "name": name, "task": run.task, "encoder": run.encoder_name,
        "size": run.spec.size if isinstance(run.spec, ImageSpec) else None,
        "steps": plan["steps"], "batch": plan["batch_size"], "seed": plan["seed"], **measured, **origin(),
    }  # fmt: skip
    if evaluation is not None:
        about, scores = evaluation.about, Scores()
        for score in evaluation.scores:
            values = [round(value, 6) for value in score.values]
            scores.setdefault(f"{score.representation}, {score.protocol}", {})[str(score.shots or "all")] = values
        found |= {"samples": about["data"]["samples"], "test": about["test"]["samples"], "metric": about["metric"]}
        found |= {"scores": scores}
    return found


def origin() -> Record:
    """Return what a number comes from: this commit, machine and torch."""
    words = ["git", "-C", str(HERE), "describe", "--always", "--dirty"]
    commit = subprocess.run(words, check=False, capture_output=True, text=True).stdout.strip()
    return {"commit": commit, "machine": processor(), "torch": torch.__version__.partition("+")[0]}


def read(path: Path) -> list[Record]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def write(path: Path | None, record: Record) -> None:
    """Append a record, and make the folder; None: keep no file."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(record, separators=(",", ":")) + "\n")


def parsed(words: list[str]) -> dict[str, Any]:
    """Return `name=value` words as options."""
    return {key: number(value) for key, value in (word.split("=", 1) for word in words)}


def number(value: str) -> Any:
    try:
        return float(value) if "." in value else int(value)
    except ValueError:
        return value


def grouped(records: list[Record], *keys: str) -> list[list[Record]]:
    """Return the records that have the same values of these keys, in the order of the first ones."""
    found: dict[tuple[Any, ...], list[Record]] = {}
    for one in records:
        found.setdefault(tuple(one[key] for key in keys), []).append(one)
    return list(found.values())


def grid(records: list[Record], representation: str, reader: str, shots: str) -> NDArray[np.float64]:
    """Return the scores (seeds, draws)."""
    return np.array([one["scores"][f"{representation}, {reader}"][shots] for one in records])


def cell(x: NDArray[np.float64], sign: str = "") -> str:
    """Return the mean of scores (seeds, draws) in per cent, with its 95% interval over both where there is one."""
    half = crossed(x)
    return f"{100 * x.mean():{sign}.1f}" + ("" if np.isnan(half) else f" ± {100 * half:.1f}")


def over_runs(values: list[float], sign: str = "") -> str:
    """Return the mean of one number a run in per cent, with its 95% interval."""
    return cell(np.array(values)[:, None], sign)


def gain(x: NDArray[np.float64]) -> str:
    """Return a paired difference, bold where it is beyond its interval."""
    return f"**{cell(x, '+')}**" if abs(x.mean()) > crossed(x) else cell(x, "+")


def markdown(head: list[str], rows: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, ["---"] * len(head), *rows])


def pages() -> dict[Path, str]:
    """Return the text of every page with such tables, with these tables as they should be."""
    sys.path.insert(0, str(HERE))

    def made(found: re.Match[str]) -> str:
        records = [json.loads(line) for name in found[3].split() for line in (FILES / name).read_text().splitlines()]
        return f"{found[1]}\n{importlib.import_module(found[2]).table(records)}"

    texts = {path: path.read_text() for path in sorted(DOCS.glob("*.md"))}
    return {path: MARKED.sub(made, text) for path, text in texts.items() if MARKED.search(text)}


def main() -> None:
    for path, text in pages().items():
        if path.read_text() != text:
            path.write_text(text)
            print(f"{path.relative_to(DOCS.parent)} is written")


if __name__ == "__main__":
    main()
