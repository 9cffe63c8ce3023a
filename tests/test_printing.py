"""Tables at any width: nothing is cut, and numbers are in one piece."""

import io
import re

import pytest
from rich.console import Console, Group
from rich.table import Table

from selfsup.base import progress
from selfsup.base.printing import fitting
from selfsup.tasks.catalogue import catalogue

NUMBERS = [f"{n}{n}.{n} ±{n}.{n}" for n in range(1, 9)]


def table() -> Table:
    made = Table(title="accuracy by labels", caption="mean and interval")
    made.add_column("representation")
    made.add_column("read by")
    for count in range(8):
        made.add_column(str(2**count), justify="right")
    made.add_column("")  # of words, at the end
    made.add_row("from scratch + pool", "self-trained", *NUMBERS, end_section=True)
    made.add_row("rotation", "propagate", *NUMBERS)
    return made


def shown(width: int, what: object) -> list[str]:
    console = Console(width=width, color_system=None)
    with console.capture() as text:
        console.print(fitting(what))
    return text.get().splitlines()


@pytest.mark.parametrize("width", [60, 80, 120, 160])
def test_a_table_that_is_too_wide_is_printed_in_parts(width: int) -> None:
    lines = shown(width, Group("told", table()))
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "…" not in text
    assert sorted(re.findall(r"\d\d\.\d ±\d\.\d", text)) == sorted(NUMBERS * 2)
    assert text.count("accuracy by labels") == text.count("mean and interval") == 1
    parts = text.count("representation")
    assert (parts > 1) == (width < 130)
    assert text.count("propagate") == text.count("self-trained") == parts


def test_long_words_go_on_in_the_next_line() -> None:
    made = Table()
    made.add_column("", justify="right")
    made.add_column("path")
    made.add_column("why")
    path = "photos/" + "x" * 90 + ".png"
    made.add_row("1", path, "far from all that have labels")
    lines = shown(80, made)
    assert max(map(len, lines)) <= 80
    cells = ["".join(column) for column in zip(*(re.split("[│┃]", line)[1:4] for line in lines[3:-1]), strict=True)]
    assert cells[1].replace(" ", "") == path
    assert " ".join(cells[2].split()) == "far from all that have labels"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_list_of_tasks_has_a_line_for_each(width: int) -> None:
    lines = [line.rstrip() for line in shown(width, catalogue().__rich__())]
    assert max(map(len, lines)) <= width
    found = [line.split()[0] for line in lines if line.startswith("  ")]
    assert found == [entry.name for entry in catalogue()]


@pytest.mark.parametrize("width", [80, 240])
def test_a_bar_leaves_out_what_matters_least(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    file = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda **_: Console(file=file, force_terminal=True, width=width))
    with progress.Progress(1000, 0, 16) as bar:
        values = {"loss": 1.2, "accuracy": 0.5, "another metric": 0.25, "probe": 0.75}
        bar.update(500, values, 1.386, "healthy", "3 not an image")
    line = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue()).splitlines()[-1].rstrip()
    assert len(line) <= width
    assert "500/1000" in line
    assert "loss 1.200 (chance 1.386)" in line
    assert line.endswith("healthy · left out: 3 not an image")
    assert ("waiting for data" in line) == (width > 80)
