"""The command line: help, JSON, the task's options, completion, and how it ends when it is cut off."""

from __future__ import annotations

import inspect
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open

import selfsup
from selfsup import cli
from selfsup.base.options import read_args
from selfsup.cli import COMMANDS, main
from selfsup.data.kinds import spec_options
from selfsup.manual import EXAMPLES
from selfsup.tasks import TASKS, find_task
from selfsup.tasks.options import options

SMALL = ["--encoder", "convnet", "--steps", "2", "--batch-size", "8", "--quiet"]
Run = Callable[..., str]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command, which must end well, and returns what it printed."""

    def run(*args: object) -> str:
        assert main([str(arg) for arg in args]) == 0
        return capsys.readouterr().out

    return run


def python(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, check=False)


def seconds(*args: str) -> float:
    """Return the least processor time of five runs, which other processes disturb less than the time on the wall."""
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert python(*args).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


# Help


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_the_text_of_every_option(run: Run, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    text = " ".join(run(command, "--help").replace("[no-]", "").split())
    function = cli._function(command)
    documented = inspect.getdoc(function) or ""
    assert documented.splitlines()[0] in text
    assert "(default: None)" not in text
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD or cli._only_python(parameter):
            continue
        (line,) = (line for line in documented.splitlines() if line.strip().startswith(f"{name}: "))
        assert line.partition(": ")[2].strip().rstrip(".") in text, name
        if "Literal" not in parameter.annotation:  # shown as its choices
            assert (name.upper() if parameter.kind is parameter.POSITIONAL_ONLY else cli._flag(name)) in text


@pytest.mark.parametrize("words", [[], ["show", "simclr"], *([command] for command in COMMANDS)])
def test_help_fits_80_columns_and_has_examples(run: Run, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = run(*words, "--help").splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith("  selfsup ") for line in lines[lines.index("Examples:") :]) >= 1
    monkeypatch.setenv("COLUMNS", "40")  # the texts wrap; a command to copy is never cut
    assert all(
        len(line) <= 40 or line.startswith(("usage", "  -", "  self")) for line in run(*words, "--help").splitlines()
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_the_files_of_examples_are_of_a_type_that_the_command_writes(command: str) -> None:
    function = cli._function(command)
    said = read_args(inspect.getdoc(function) or "")
    for example in EXAMPLES[command]:
        for option, suffix in re.findall(r"-(o|-sheet) \S+\.(\w+)", example):
            name = {"o": "out"}.get(option, option.lstrip("-"))
            assert suffix in f"{said[name]} {said.get('format', '')}".lower(), example


def test_help_begins_with_what_is_common(run: Run) -> None:
    text = run("pretrain", "--task", "rotation", "--help")
    order = ["DATA ", "--task ", "--steps ", "--out ", "Training:", "--lr ", "Data and views:", "--size ",
             "Options of rotation", "--flip ", "Logging and hardware:", "--device ", "Examples:"]  # fmt: skip
    assert sorted(order, key=text.index) == order


def test_help_lists_every_command(run: Run) -> None:
    for text in (run("--help"), run("-h"), run()):
        assert all(command in text for command in COMMANDS)


@pytest.mark.parametrize(
    "words", [["pretrain", "--task", "rotation"], ["show", "rotation"], ["show", "--size", "9", "rotation"]]
)
def test_help_of_a_task_shows_its_options_too(run: Run, words: list[str]) -> None:
    assert "--flip" not in run(words[0], "--help")
    text = run(*words, "--help")
    assert "--flip" in text
    assert "DATA" in text


def test_help_of_every_option_of_a_task_is_its_sentence_and_range(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    text = " ".join(run("pretrain", "--task", "simclr", "--help").split())
    for name, option in {**options(find_task("simclr")), **spec_options("image")}.items():
        assert cli._flag(name) in text
        assert option.sentence.rstrip(".") in text
        assert option.range is None or option.range.text in option.sentence


def test_help_is_quick_and_imports_neither_torch_nor_numpy() -> None:
    for code in ("import selfsup", "from selfsup.cli import main; assert main(['--help']) == 0"):
        told = python("-c", f"import sys; {code}; print('heavy', sorted({{'torch', 'numpy'}} & set(sys.modules)))")
        assert told.stdout.splitlines()[-1] == "heavy []", told.stderr
    assert seconds("-c", "import selfsup") < 0.2
    assert seconds("-m", "selfsup", "--help") < 0.5


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion(run: Run, shell: str) -> None:
    script = run("--tyro-print-completion", shell)
    assert "pretrain" in script
    assert "--encoder" in script
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


# Options of the task


@pytest.mark.parametrize(
    "words", [["digits", "--flip", "0"], ["digits", "--flip=0"], ["--flip", "0", "digits"], ["--flip=0", "digits"]]
)
def test_options_of_the_task_in_any_place(run: Run, words: list[str]) -> None:
    run("pretrain", *words, *SMALL, "-o", "run")
    assert json.loads(Path("run", "recipe.json").read_text())["task"] == {
        "name": "rotation",
        "hyperparameters": {"num_rotations": 4, "pad": 4, "flip": 0.0, "smoothing": 1.0, "hidden_dim": 256},
    }


@pytest.mark.parametrize(
    "words",
    [
        ["rotation", "digits", "--pad", "1"],
        ["--pad", "1", "rotation", "digits"],
        ["--pad=1", "--count", "2", "rotation", "digits"],
    ],
)
def test_options_of_the_task_to_show(run: Run, words: list[str]) -> None:
    assert run("show", *words, "-o", "x.png") == "x.png\n"
    assert Path("x.png").read_bytes()[:4] == b"\x89PNG"


def test_options_that_need_not_be_given(run: Run) -> None:
    run("pretrain", "digits", "--task", "supervised", "--pad", "1", *SMALL, "-o", "run")
    options = json.loads(Path("run", "recipe.json").read_text())["task"]["hyperparameters"]
    assert options == {"num_classes": 10, "pad": 1, "flip": 0.5}


OWN = """
from selfsup.tasks.image.rotation import Rotation

class Mine(Rotation):
    def __init__(self, encoder, *, mirror: bool = False, bright: bool = True, sizes: tuple[int, int] = (1, 2)):
        super().__init__(encoder)
"""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--mirror", "digits"], {"mirror": True, "bright": True, "sizes": [1, 2]}),
        (["digits", "--no-bright"], {"mirror": False, "bright": False, "sizes": [1, 2]}),
        (["--sizes", "3", "4", "--mirror", "digits"], {"mirror": True, "bright": True, "sizes": [3, 4]}),
    ],
)
def test_kinds_of_options_of_a_task_of_ones_own(
    run: Run, monkeypatch: pytest.MonkeyPatch, words: list[str], expected: dict[str, object]
) -> None:
    Path("my_task.py").write_text(OWN)
    monkeypatch.syspath_prepend(Path.cwd())
    monkeypatch.delitem(sys.modules, "my_task", raising=False)
    run("pretrain", *words, "--task", "my_task:Mine", *SMALL, "--out", "run")
    assert json.loads(Path("run", "recipe.json").read_text())["task"]["hyperparameters"] == expected


@pytest.mark.parametrize("name", TASKS)
def test_no_option_of_a_task_hides_one_of_a_command(name: str) -> None:
    for command in (selfsup.pretrain, selfsup.show):
        taken = {p.name for p in inspect.signature(command).parameters.values() if p.kind is not p.VAR_KEYWORD}
        assert not taken & find_task(name).hyperparameters().keys()


# Results


def test_json_is_one_object_and_nothing_else(run: Run, finished_run: Path) -> None:
    assert json.loads(run("tasks", "--json"))[0]["name"] == "supervised"
    assert json.loads(run("--json", "tasks", "rotation"))["options"]["flip"]["default"] == 0.5
    assert json.loads(run("pretrain", "digits", *SMALL[:-1], "--out", "run", "--json"))["done"] is True
    assert json.loads(run("show", "rotation", "digits", "--json")) == {"path": "show.png", "text": ""}
    assert json.loads(run("embed", finished_run, "digits", "--json", "-o", "x.parquet"))["rows"] == 1797
    assert json.loads(run("export", finished_run, "--json"))["path"] == "encoder.safetensors"
    evaluate = ["evaluate", finished_run, "--data", "digits", "--shots", "1", "--draws", "2", "--protocol", "linear"]
    evaluation = json.loads(run(*evaluate, "--no-scratch", "--json"))
    assert {score["shots"] for score in evaluation["scores"]} == {1}


def test_what_a_library_prints_is_no_part_of_the_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = cli._function("tasks")

    def loud(name: str | None = None, /) -> object:
        """Print, then list the tasks.

        Args:
            name: A task.
        """
        print("downloading")
        return find(name)

    monkeypatch.setattr(cli, "_function", lambda command: loud)
    assert main(["tasks", "rotation", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["name"] == "rotation"
    assert "downloading" in err


def test_paths_are_printed_as_they_are(run: Run, finished_run: Path) -> None:
    folder = Path("[bold]", "a" * 120)
    folder.mkdir(parents=True)
    out = folder / "x.safetensors"
    assert run("export", finished_run, "--out", out).splitlines()[0] == str(out)
    with safe_open(out, "numpy") as file:
        assert json.loads(file.metadata()["selfsup"])["task"] == "rotation"


def test_python_m() -> None:
    assert "pretrain" in python("-m", "selfsup", "--help").stdout
    told = python("-m", "selfsup", "taks")
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr == "selfsup: unknown command 'taks'; did you mean 'tasks'?\n"


# Cut off


PRINTS = """
import sys
from selfsup import cli
from selfsup.base.options import read_args

cli._run = lambda words: print("a task")  # the list of tasks imports torch
sys.exit(cli.main(["tasks"]))
"""


@pytest.mark.parametrize("words", [["-c", PRINTS], ["-m", "selfsup", "--help"]], ids=["result", "help"])
def test_a_closed_pipe_gives_no_traceback(words: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    told = subprocess.run([sys.executable, *words], stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (told.returncode, told.stderr) == (141, b"")


def test_control_c(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(name: str | None = None, /) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_function", lambda command: stop)
    assert main(["tasks"]) == 130
    assert capsys.readouterr() == ("", "selfsup: interrupted\n")


def test_a_pipe_is_as_wide_as_columns_says(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    widths = []
    for columns in ("80", "200", "none"):
        monkeypatch.setenv("COLUMNS", columns)
        widths.append(max(map(len, run("tasks").splitlines())))
    assert widths[0] <= 80
    assert 80 < widths[2] <= 120 < widths[1], "120 where nothing is said"
