"""Tables at any width: nothing is cut, and numbers are in one piece."""

import io
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from rich.console import Console, Group
from rich.table import Table

from selfsup.base import progress
from selfsup.base.printing import Copied, Indented, fitting
from selfsup.commands.label import Doubtful, Labelled
from selfsup.commands.suggest import Sample, Suggested
from selfsup.reports.search import Found, Neighbour
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


PATHS = [f"a folder/{'holiday-' * number}{number}.jpg" for number in range(15)]


def results() -> list[tuple[object, list[str]]]:
    """Return what commands print, and words of which none may be cut."""
    samples = tuple(Sample(place, path, f"most typical of {place:,}") for place, path in enumerate(PATHS))
    texts = tuple(Sample(place, path, "covers 7", "word " * 15) for place, path in enumerate(PATHS))
    doubts = tuple(Doubtful(place, path, "given", "another class", 0.9) for place, path in enumerate(PATHS))
    status, classes = {"unsure": 190, "given": 10, "unreadable": 3}, {"cat": 6, "dog": 4}
    labelled = Labelled(Path("all.csv"), 10, status, classes, 0.7, 0, 0, 0, 0, doubts, ("7",), samples, (), ())
    found = Found("a query", tuple(Neighbour(place, path, "class", 0.5) for place, path in enumerate(PATHS)))
    return [
        (Suggested(samples, "typical", Path("to-label.csv"), 0, None, ("a note",)), PATHS),
        (Suggested(texts, "cover", Path("to-label.csv"), 0, None, ()), PATHS),
        (labelled, [*PATHS[:10], "the first 10 of 15", "10 of 203 samples have a label (190 unsure"]),
        (found, PATHS),
    ]


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("number", range(4))
def test_results_fit_and_nothing_is_cut_without_saying(width: int, number: int) -> None:
    result, words = results()[number]
    lines = [line.rstrip() for line in shown(width, result.__rich__())]
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    rows = [re.split("[│┃]", line)[1:-1] if line[:1] in "│┃" else [line] for line in lines if line]
    columns = {place: "".join(row[place] for row in rows if len(row) > place) for place in range(3)}
    together = re.sub(r"\s+", "", " ".join(columns.values()))
    assert [word for word in words if re.sub(r"\s+", "", word) not in together] == []


def test_a_command_in_several_lines_is_the_same_to_a_shell() -> None:
    command = "selfsup pretrain 'my photos/' --task simclr --no-recalibrate --min-scale -0.5 --out runs/a/b/c/d/e -n 15"
    for width in (40, 80, 200):
        lines = shown(width, Copied(command))
        assert all(line.endswith(" \\") for line in lines[:-1])
        assert not any(line.endswith(("--task \\", "--out \\", "-n \\")) for line in lines)
        read = subprocess.run(["sh", "-c", "printf '%s\\n' " + "\n".join(lines)], capture_output=True, text=True)
        assert read.stdout.splitlines() == shlex.split(command)
        assert max(map(len, lines)) <= width
    assert all(line.startswith("  ") and len(line) <= 20 for line in shown(20, Indented("some words " * 9)))


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_list_of_tasks_has_a_line_for_each(width: int) -> None:
    lines = [line.rstrip() for line in shown(width, catalogue().__rich__())]
    assert max(map(len, lines)) <= width
    found = [line.split()[0] for line in lines if line.startswith("  ")]
    assert found == [entry.name for entry in catalogue()]


def test_without_a_terminal_a_long_wait_is_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda **_: Console(file=file))
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    for quiet in (True, False):
        with progress.counting("embedding", 40, quiet) as advance:
            for _ in range(4):
                advance(10)
        assert file.getvalue() == ("" if quiet else "embedding · 20/40 · 24 s left\nembedding · 40/40 · 0 s left\n")


@pytest.mark.parametrize("width", [80, 240])
def test_a_bar_leaves_out_what_matters_least(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    file = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda **_: Console(file=file, force_terminal=True, width=width))
    with progress.Progress(1000, 0, 16) as bar:
        values = {"loss": 1.2, "accuracy": 0.5, "another metric": 0.25, "probe": 0.75}
        bar.update(500, values, 1.386, "healthy", 1203)
    line = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue()).splitlines()[-1].rstrip()
    assert len(line) <= width
    assert "500/1000" in line
    assert "loss 1.200 (chance 1.386)" in line
    assert line.endswith("healthy · 1,203 left out")
    assert ("waiting for data" in line) == (width > 80)
