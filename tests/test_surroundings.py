"""Odd surroundings: no home, closed streams, ASCII, containers, launchers, pools; and what Python hands over."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.table import Column, Table

import selfsup
from selfsup import cli
from selfsup.base import processes
from selfsup.base.cache import cache_folder, new_in_cache
from selfsup.base.paths import expanded, user_path
from selfsup.base.printing import Printable
from selfsup.base.quiet import quiet_libraries
from selfsup.base.ranks import Launched, launched
from selfsup.cli import main
from selfsup.data.image import Arrays, Files
from selfsup.data.open import open_data
from selfsup.errors import RunFailed, UserError
from selfsup.evaluation.duplicates import near_copies
from selfsup.evaluation.evaluators import EVALUATORS
from selfsup.source import Broken
from selfsup.train.device import make_fabric

SMALL = ("--encoder", "convnet", "--steps", "2", "--batch-size", "4", "--quiet", "--device", "cpu")
FEW: dict[str, Any] = {"encoder": "convnet", "steps": 2, "batch_size": 4, "quiet": True, "device": "cpu"}
CPU = torch.device("cpu")
X = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
Y = np.arange(12) % 2


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the home folder away: no HOME, and no entry for the user."""
    import pwd

    def nobody(uid: int) -> Any:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("SELFSUP_CACHE", raising=False)


# --- the cache and the home folder


@pytest.mark.usefixtures("homeless")
def test_without_a_home_images_open_and_the_cache_is_asked_for(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(open_data(images)) == 8
    with pytest.raises(RunFailed, match=r"no home folder.*SELFSUP_CACHE"):
        cache_folder()
    with pytest.raises(UserError, match="no home folder"):
        user_path("~/run")
    monkeypatch.setenv("SELFSUP_CACHE", "/somewhere")
    assert cache_folder() == Path("/somewhere")


def test_a_cache_that_cannot_be_written_names_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path / "file" / "cache"))
    (tmp_path / "texts").mkdir()
    for number in range(3):
        (tmp_path / "texts" / f"{number}.txt").write_text(f"a sentence of several words, number {number}. " * 5)
    assert main(["pretrain", str(tmp_path / "texts"), "--task", "bert", "--encoder", "bert-tiny", *SMALL[2:]]) == 1
    assert "SELFSUP_CACHE" in capsys.readouterr().err.splitlines()[-1]
    assert main(["pretrain", "torchvision:CIFAR10"]) == 2
    assert "SELFSUP_CACHE" in capsys.readouterr().err.splitlines()[-1]


def test_a_file_of_the_cache_is_whole_or_not_there(tmp_path: Path) -> None:
    with new_in_cache(tmp_path / "a" / "file") as aside:
        aside.write_bytes(b"content")
    assert (tmp_path / "a" / "file").read_bytes() == b"content"
    with contextlib.suppress(ZeroDivisionError), new_in_cache(tmp_path / "b" / "file") as aside:
        aside.write_bytes(b"half")
        raise ZeroDivisionError
    assert list((tmp_path / "b").iterdir()) == []
    with pytest.raises(FileNotFoundError), new_in_cache(tmp_path / "c" / "file"):
        (tmp_path / "of the user").read_bytes()  # what is read meanwhile is not the cache


def test_a_tilde_is_the_home_folder_everywhere(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    images.rename(home / "photos")
    (home / "labels.csv").write_text("path,label\n" + "".join(f"cat/{i}.png,a\ndog/{i}.png,b\n" for i in range(4)))
    assert main(["pretrain", "~/photos", *SMALL, "--out=~/run"]) == 0
    assert (home / "run" / "encoder.safetensors").exists()
    assert selfsup.Run("~/run").done
    assert main(["embed", "~/run", "~/photos", "--labels=~/labels.csv", "--out=~/e.parquet", "--quiet"]) == 0
    found = selfsup.search("~/e.parquet", "~/photos/cat/0.png", k=2, out="~/sheet.png", device="cpu")
    assert found.neighbours[0].path == "cat/0.png"
    assert {path.name for path in home.iterdir()} == {"photos", "labels.csv", "run", "e.parquet", "sheet.png"}
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize("given", [None, 3, ["a"]])
def test_what_is_not_a_path_is_one_line(given: Any) -> None:
    with pytest.raises(UserError, match="--out must be a path, not"):
        user_path(given)


def test_bytes_are_a_path() -> None:
    assert expanded(b"run") == "run"


# --- streams


def test_closed_streams_are_opened_on_nothing(tmp_path: Path) -> None:
    """In a process of its own: a file that it opens must not get the number of a closed stream, and what is printed."""
    code = """
        import os, sys
        from selfsup.cli import main
        assert sys.stdin is sys.stdout is sys.stderr is None
        assert main(["nothing", "--json"]) == 2
        with open("file", "w") as file:
            os.write(1, b"of a library")
            os.write(2, b"of a library")
            file.write(f"number {file.fileno()}")
    """
    shell = ["sh", "-c", '"$@" <&- >&- 2>&-', "-", sys.executable, "-c", textwrap.dedent(code)]
    assert subprocess.run(shell, check=False, timeout=120, cwd=tmp_path).returncode == 0
    content = (tmp_path / "file").read_text()
    assert content.startswith("number ")
    assert int(content.removeprefix("number ")) > 2


def test_a_command_without_stdout_ends_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["tasks"]) == 0


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", "+- ->"), ("latin-1", "± ->"), ("utf-8", "± →")])
def test_any_encoding_of_the_terminal_will_do(encoding: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert main(["tasks", "rotation"]) == 0
    print("± → \udc80", file=out, flush=True)
    lines = out.buffer.getvalue().decode(encoding).splitlines()  # type: ignore[attr-defined]
    assert lines[-1] == f"{shown} \\udc80"
    assert len(lines) > 5


class Wide(Printable):
    """A table that needs 60 columns."""

    def __rich__(self) -> Table:
        table = Table(*(Column(name, justify="right") for name in "abc"))
        table.add_row(*["1,234.5 ±67.8 of them"] * 3)
        return table


@pytest.mark.parametrize("columns", ["30", "200"])
def test_numbers_are_whole_in_a_narrow_terminal(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(out, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(sys, "stdout", out)
    cli._print(Wide(), False, ())
    assert out.getvalue().count("1,234.5 ±67.8 of them") == 3


def test_notes_on_the_encoder_are_in_the_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("one.npz", x=X[:1])
    rest = [*SMALL[:4], "--quiet", "--device", "cpu", "--json", "--out", "run"]
    assert main(["pretrain", "one.npz", "--task", "lejepa", *rest]) == 0
    printed = capsys.readouterr()
    about_one, batch = json.loads(printed.out)["notes"]
    assert "it learns nothing" in about_one
    assert "batch 1 (by default 128)" in batch
    assert about_one in printed.err
    health = {json.loads(line)["health"] for line in Path("run/metrics.jsonl").read_text().splitlines()}
    assert health == {""}, "nobody can tell of one sample whether it is healthy"


# --- other libraries


def test_other_libraries_are_quiet_and_then_as_they_were(caplog: pytest.LogCaptureFixture) -> None:
    own, library, part = map(logging.getLogger, ("mine", "torch", "torch.onnx._internal"))
    asked = logging.getLogger("timm")
    before = (library.level, part.level)
    asked.setLevel(logging.DEBUG)
    part.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings(record=True) as heard:
            warnings.resetwarnings()
            with quiet_libraries():
                for logger in (own, library, part, asked):
                    logger.error("of %s", logger.name)
                warnings.warn("of a library", stacklevel=1)
            assert not heard
            warnings.warn("afterwards", stacklevel=1)
            assert len(heard) == 1
        assert [record.name for record in caplog.records] == ["mine", "timm"]
        assert part.level == logging.WARNING
        assert library.level == before[0]
    finally:
        asked.setLevel(logging.NOTSET)
        part.setLevel(before[1])


def test_a_line_of_ours_is_not_lost_among_those_of_a_library(
    finished_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("onnxscript")

    def export(*arguments: Any, **options: Any) -> Any:
        for number in range(100):
            logging.getLogger("torch.onnx._internal.exporter").error("line %d", number)
        raise RuntimeError("an operation is not supported\nwith pages of explanation")

    monkeypatch.setattr(torch.onnx, "export", export)
    assert main(["export", str(finished_run), "--format", "onnx", "--out", str(tmp_path / "a.onnx")]) == 2
    assert not caplog.records
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be exported as onnx: an operation is not supported" in line


# --- containers


def grouped(root: Path, own: str, files: dict[str, str]) -> None:
    for name, text in {
        "proc/self/cgroup": own,
        **{f"sys/fs/cgroup/{name}": text for name, text in files.items()},
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")


V1 = "4:memory:/docker/a\n2:cpu,cpuacct:/docker/a"
GIB = 2**30


@pytest.mark.parametrize(
    ("own", "files", "cores", "memory"),
    [
        ("0::/", {"cpu.max": "200000 100000", "memory.max": str(3 * GIB)}, 2, 3 * GIB),
        ("0::/", {"cpu.max": "150000 100000", "memory.max": "max"}, 2, 64 * GIB),
        ("0::/", {"cpu.max": "10000 100000"}, 1, 64 * GIB),
        ("0::/", {"cpu.max": "max 100000"}, 64, 64 * GIB),
        ("0::/a/b", {"a/cpu.max": "400000 100000", "a/b/cpu.max": "max 100000"}, 4, 64 * GIB),
        (V1, {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3, 64 * GIB),
        (V1, {"cpu/docker/a/cpu.cfs_quota_us": "-1", "cpu/docker/a/cpu.cfs_period_us": "100000"}, 64, 64 * GIB),
        (V1, {"memory/docker/a/memory.limit_in_bytes": str(GIB)}, 64, GIB),
        (V1, {"memory/memory.limit_in_bytes": "9223372036854771712"}, 64, 64 * GIB),
        ("0::/", {"cpu.max": "nonsense"}, 64, 64 * GIB),
        ("nonsense", {}, 64, 64 * GIB),
    ],
)
def test_limits_of_a_container(
    own: str, files: dict[str, str], cores: int, memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grouped(tmp_path, own, files)
    monkeypatch.setattr(processes, "ROOT", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 64 * GIB // 4096, "SC_PAGE_SIZE": 4096}.__getitem__)
    assert processes.available_cores() == cores
    assert processes.available_memory() == memory


def test_torch_computes_in_no_more_threads_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        monkeypatch.setattr(processes, "available_cores", lambda: 2)
        make_fabric("cpu", "float32")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_daemonic_process_does_the_work_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)  # type: ignore[attr-defined]
    assert processes.side_by_side(lambda item: (item, os.getpid()), [1, 2], CPU) == [(1, os.getpid()), (2, os.getpid())]


@pytest.mark.parametrize("allowed", [0, 1])
def test_where_no_process_can_be_started_those_there_are_do_the_work(
    allowed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, fork = [], os.fork

    def forbidden() -> int:
        if len(started) == allowed:
            raise BlockingIOError("Resource temporarily unavailable")
        started.append(1)
        return fork()

    monkeypatch.setattr(os, "fork", forbidden)
    monkeypatch.setattr(processes, "available_cores", lambda: 3)
    monkeypatch.setattr(processes, "available_memory", lambda: 64 * GIB)
    assert processes.side_by_side(lambda item: item * 2, range(5), CPU) == [0, 2, 4, 6, 8]


def test_no_shared_memory_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: Any) -> Any:
        raise OSError("[Errno 30] Read-only file system: '/dev/shm'")

    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", refused)
    assert processes.side_by_side(lambda item: item, range(3), CPU) == [0, 1, 2]


def test_trainings_in_threads_are_those_of_the_main_thread(tmp_path: Path) -> None:
    def train(name: str) -> None:
        selfsup.pretrain(X, out=tmp_path / name, **(FEW | {"steps": 8}))

    train("alone")
    threads = [threading.Thread(target=train, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    weights = {(tmp_path / name / "encoder.safetensors").read_bytes() for name in ("alone", "a", "b")}
    assert len(weights) == 1, "each draws from torch's generator what it would draw alone"


# --- launchers

MASTER = {"MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
SBATCH = {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NNODES": "1"}


@pytest.mark.parametrize(
    ("environment", "here"),
    [
        ({}, Launched()),
        ({"RANK": "3"}, Launched()),
        ({"RANK": "", "WORLD_SIZE": ""}, Launched()),
        ({"WORLD_SIZE": "4"}, Launched()),
        ({"RANK": "5", "WORLD_SIZE": "4", **MASTER}, Launched()),
        ({"RANK": "x", "WORLD_SIZE": "4", **MASTER}, Launched()),
        ({"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", **MASTER},
         Launched(1, 4, 1, 2, "torchrun")),
        ({"RANK": "1", "WORLD_SIZE": "4", **MASTER}, Launched(1, 4, 0, 1, "torchrun")),
        (SBATCH, Launched()),
        ({**SBATCH, "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_TASKS_PER_NODE": "1"}, Launched()),
        ({**SBATCH, "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_TASKS": "4",
          "SLURM_STEP_TASKS_PER_NODE": "2(x2)"}, Launched(3, 4, 1, 2, "srun")),
    ],
)  # fmt: skip
def test_which_process_this_is(environment: dict[str, str], here: Launched) -> None:
    assert launched(environment) == here


@pytest.mark.parametrize("environment", [SBATCH, {"RANK": "3"}, {"WORLD_SIZE": "4"}, {"RANK": "", "WORLD_SIZE": ""}])
def test_variables_alone_start_nothing(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert make_fabric("cpu", "float32").world_size == 1
    assert main(["tasks", "rotation"]) == 0
    assert "rotation" in capsys.readouterr().out


def test_machines_with_different_numbers_of_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "2", **MASTER}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="equally many"):
        make_fabric("cpu", "float32")


def test_another_system_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)  # which Windows lacks
    monkeypatch.delitem(sys.modules, "selfsup.base.writing", raising=False)
    for error in (UserError, ImportError):  # one line of the command line; what tools that try imports expect
        with pytest.raises(error, match="Linux and macOS"):
            importlib.import_module("selfsup.base.writing")


# --- what Python programs hand over


class Pairs(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """A map-style data set of torch: (image, label), with what else it may have."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> Any:
        return Image.fromarray(X[index]), int(Y[index])


class Columns:
    """What a data set of Hugging Face looks like: rows by number, columns by name."""

    def __init__(self, **columns: Any) -> None:
        self.columns_by_name = columns
        self.column_names = list(columns)
        self.features = {"label": type("ClassLabel", (), {"names": ["cat", "dog"]})()}

    def __len__(self) -> int:
        return len(next(iter(self.columns_by_name.values())))

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return list(self.columns_by_name[key])
        return {name: column[key] for name, column in self.columns_by_name.items()}


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def as_series(values: Any) -> Any:
    return pytest.importorskip("pandas").Series(list(values), index=range(10, 10 + len(values)))


BATCH = torch.from_numpy(X)
OBJECTS = {
    "array": lambda: X,
    "list of arrays": lambda: list(X),
    "object array": lambda: np.array([*X, None], object)[:-1],
    "tuple of images": lambda: tuple(map(Image.fromarray, X)),
    "bytes of files": lambda: [png(x) for x in X],
    "tensor, channels first": lambda: BATCH.permute(0, 3, 1, 2),
    "tensor, channels last": lambda: BATCH,
    "list of tensors": lambda: list(BATCH.permute(0, 3, 1, 2)),
    "series of arrays": lambda: as_series(X),
    "data set": Pairs,
    "data set with targets": lambda: Pairs(targets=Y.tolist(), classes=["cat", "dog"]),
    "subset": lambda: torch.utils.data.Subset(Pairs(targets=torch.from_numpy(Y)), range(12)),
    "tensors": lambda: torch.utils.data.TensorDataset(BATCH.permute(0, 3, 1, 2), torch.from_numpy(Y)),
    "columns": lambda: Columns(image=[Image.fromarray(x) for x in X], label=Y.tolist()),
    "undecoded columns": lambda: Columns(image=[{"bytes": png(x), "path": None} for x in X]),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_are_the_same_images(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    source: Any = selfsup.open_data(OBJECTS[name]())  # type: ignore[arg-type]
    assert [source.read(i).tolist() for i in range(len(source))] == X.tolist()
    some = source.take(np.array([3, 1]))
    assert np.array_equal(some.read(0), X[3])
    assert some.fingerprint() != source.fingerprint() == selfsup.open_data(OBJECTS[name]()).fingerprint()  # type: ignore[arg-type]
    spec = source.spec()
    assert (spec.size, spec.channels) == (16, 3)
    assert source.conform(spec).read(5).shape == (16, 16, 3)
    if name in ("data set with targets", "subset", "tensors", "columns"):
        assert source.labels.ids.tolist() == Y.tolist()
        assert source.labels.classes == (("cat", "dog") if name in ("data set with targets", "columns") else ("0", "1"))
    else:
        assert source.labels is None
    said = capsys.readouterr().err
    assert ("is read as (N, C, H, W)" in said) == (name == "tensor, channels first")
    assert ("give their labels" in said) == (name == "data set")


def test_other_sizes_grey_and_more_types() -> None:
    sizes: Any = selfsup.open_data([X[0], X[1][:8], Image.fromarray(X[2][..., 0])][:2])
    assert sizes.read(1).shape == (8, 16, 3)
    grey: Any = selfsup.open_data([Image.fromarray(x[..., 0]) for x in X])
    assert grey.spec().channels == 1
    assert selfsup.open_data(torch.rand(4, 5, 6)).read(0).shape == (5, 6, 1)
    half: Any = selfsup.open_data(torch.rand(4, 3, 8, 8).to(torch.bfloat16))
    assert half.read(0).dtype == np.float32
    sketch = Image.fromarray(np.full((8, 8, 4), 0, np.uint8), "RGBA").convert("P")
    assert selfsup.open_data([sketch]).read(0).shape == (8, 8, 3)


def test_paths_in_every_form(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = sorted(map(str, images.rglob("*.png")))
    for given in (paths, tuple(map(Path, paths)), np.array(paths), as_series(paths), list(map(Path, paths))):
        source = selfsup.open_data(given, labels="folders")  # type: ignore[arg-type]
        assert isinstance(source, Files)
        assert source.path(3) == paths[3]
        assert source.labels is not None
        assert source.labels.classes == ("cat", "dog"), "the folder below the one that all paths share"
    monkeypatch.setenv("HOME", str(images))
    assert selfsup.open_data(["~/cat/0.png"]).read(0).shape == (16, 16, 3)


def test_a_list_of_texts_and_of_text_files(tmp_path: Path) -> None:
    texts = selfsup.open_data(["One document.", "Another one.", "A third one, that speaks of see.png"])
    assert (texts.kind, texts.read(2)) == ("text", "A third one, that speaks of see.png")
    (tmp_path / "a.txt").write_text("In a file.")
    assert selfsup.open_data([tmp_path / "a.txt"]).read(0) == "In a file."
    rows = selfsup.open_data(Columns(text=["a cat", "a dog"], label=[0, 1]))
    assert rows.labels is not None
    assert (rows.read(0), rows.labels.classes) == ("a cat", ("cat", "dog"))
    assert "the column 'text' is read with the labels in 'label'" in " ".join(rows.notes)  # type: ignore[attr-defined]


def frame(**columns: Any) -> Any:
    return pytest.importorskip("pandas").DataFrame(columns)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: None, "data must be a path, an array.*, not NoneType"),
        (lambda: 3, "not int"),
        (lambda: [], "list of samples is empty"),
        (lambda: ["a.png", None], "row 1 of the data is None, not a path: leave it out"),
        (lambda: as_series(["a.png", float("nan")]), "row 1 of the data is nan"),
        (lambda: [None, "a.png"], "row 0 of the data is None"),
        (lambda: [X[0], "a.png"], "row 1 of the data is 'a.png', not an array: give samples of one kind"),
        (lambda: [1, 2], "row 0 is 1, no sample"),
        (lambda: ["a.png", X[0]], "row 1 of the data is ndarray"),
        (lambda: frame(path=["a.png"], y=[1]), "columns 'path', 'y': give one of them"),
        (lambda: iter(X), "can only be gone through: give a list"),
        (lambda: torch.utils.data.DataLoader(Pairs()), "loader of batches: give its data set"),
        (lambda: {"train": X}, "keys 'train': give one value"),
        (lambda: Columns(audio=[1]), "columns 'audio', none of images"),
        (lambda: Columns(text=["a", None]), "row 1 of the column 'text' is None"),
        (lambda: torch.utils.data.StackDataset(x=[1]), "have 'x', none called 'image'"),
        (lambda: torch.rand(3), r"shape \(N, H, W\)"),
        (lambda: torch.utils.data.TensorDataset(torch.rand(3, 2)), "item 0 is not read as an image"),
        (lambda: [b"no image"], "item 0 is not read as an image"),
    ],
)
def test_other_objects_are_one_line(data: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        selfsup.open_data(data())


def test_a_data_set_that_fails_skips_a_sample() -> None:
    class Failing(Pairs):
        def __getitem__(self, index: int) -> Any:
            if index == 5:
                raise RuntimeError("of its own")
            return super().__getitem__(index)

    source = selfsup.open_data(Failing(targets=[{}] * 12))
    with pytest.raises(Broken, match="RuntimeError: of its own"):
        source.read(5)
    assert source.labels is None
    assert "its labels are not read" in " ".join(source.notes)  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="Subset: item 0 cannot be read: RuntimeError: of its own"):
        selfsup.open_data(torch.utils.data.Subset(Failing(), [5]))


def test_every_command_takes_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    items = [Image.fromarray(x) for x in X]
    run = selfsup.pretrain(items, out="run", **FEW)
    assert selfsup.pretrain(items, out="run", **FEW).done, "the same images resume"
    selfsup.embed(run, torch.from_numpy(X), labels=torch.from_numpy(Y), quiet=True)
    for query in (X[4], items[4], BATCH[4].permute(2, 0, 1), np.int64(4), 4):
        found = selfsup.search("embeddings.parquet", query, k=3, device="cpu")
        assert (found.neighbours[0].row == 4) == (not isinstance(query, int | np.integer))
    result = selfsup.evaluate(
        run, data=items, labels=as_series(Y), protocol="knn", scratch=False, draws=2, shots="1", quiet=True
    )
    assert result.about["classes"] == 2


def test_fractions_are_numeric_labels(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = Arrays(np.random.default_rng(1).integers(0, 17, (12, 8, 8), dtype=np.uint8))
    given = torch.arange(12) / 8
    for labels in (given, given.numpy(), given.tolist(), as_series(given.tolist())):
        found = selfsup.open_data(x, labels).labels
        assert found is not None
        assert {"0", "0.125", "0.25"} < set(found.classes)
    protocol = next(name for name, one in EVALUATORS.items() if "numeric" in one.targets)
    options: Any = {"protocol": protocol, "scratch": False, "draws": 2, "shots": "5", "quiet": True}
    result = selfsup.evaluate(finished_run, data=x, labels=given, target="numeric", **options)
    assert result.about["target"] == "numeric"
    assert "each value is a class, except with --target numeric" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": object()}, "an encoder is given by its name, not as object"),
        ({"task": object()}, "a task is given by its name or its class, not as object"),
        ({"encoder": "ViT"}, "did you mean 'vit'"),
        ({"out": 3}, "--out must be a path"),
    ],
)
def test_arguments_of_other_types_are_one_line(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        selfsup.pretrain(X, **({"out": tmp_path / "run"} | FEW | options))


# --- near copies


def blobs(count: int, seed: int = 0, side: int = 32) -> list[Image.Image]:
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return [Image.fromarray(x).resize((side, side), Image.Resampling.BICUBIC) for x in small]


def saved_again(image: Image.Image, format: str, **options: Any) -> Image.Image:
    file = io.BytesIO()
    image.save(file, format, **options)
    return Image.open(file)


def as_pixels(images: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(x.resize((32, 32)), np.float32).transpose(2, 0, 1) / 64 for x in images])


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x,
        lambda x: saved_again(x, "jpeg", quality=75),
        lambda x: saved_again(x, "webp", quality=80),
        lambda x: x.resize((24, 24)),
        lambda x: x.resize((64, 64)),
        lambda x: x.convert("P", palette=Image.Palette.ADAPTIVE).convert("RGB"),
    ],
)
def test_images_saved_again_are_near_copies(change: Any) -> None:
    train, others = blobs(40), blobs(10, seed=1)
    found = near_copies(as_pixels(train), as_pixels([*others, *map(change, train[7:20])]))
    assert found.tolist() == [[10 + i, 7 + i] for i in range(13)]


def test_what_is_not_a_near_copy() -> None:
    train = blobs(40)
    hues = [Image.fromarray(np.asarray(x)[..., [1, 2, 0]]) for x in train]
    mirrored = [x.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for x in train]
    darker = [x.point(lambda v: v // 2) for x in train]
    plain = [Image.new("RGB", (32, 32), "white")] * 5
    assert not len(near_copies(as_pixels([*train, *plain]), as_pixels([*hues, *mirrored, *darker, *plain])))
    digits = selfsup.open_data("digits")
    x = np.stack([digits.read(i) for i in range(len(digits))]).transpose(0, 3, 1, 2).astype(np.float32) / 64
    assert not len(near_copies(x[200:], x[:200])), "other digits of one class"


def test_near_copies_among_files_are_counted_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, image in enumerate([*blobs(12), *blobs(12, seed=2)]):
        for part in ("train", "test") if number < 4 or number >= 12 else ("train",):
            if (part, number >= 12) != ("train", True):
                path = Path(part) / "ab"[number % 2] / f"{number}.{'png' if part == 'train' else 'jpg'}"
                path.parent.mkdir(parents=True, exist_ok=True)
                image.save(path)
    run = selfsup.pretrain("train", out="run", **FEW)
    result = selfsup.evaluate(
        run, data="train", labels="folders", test="test", test_labels="folders", protocol="knn", scratch=False,
        draws=2, shots="1", quiet=True,
    )  # fmt: skip
    assert result.about["duplicates"]["same"] == 0
    assert result.about["duplicates"]["near"] == 4
    assert "4 test samples are near copies of training samples" in " ".join(result.about["warnings"])


def test_compare_takes_a_smaller_batch_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []

    def measure(task: object, samples: object, views: object, batch: int) -> None:
        taken.append(batch)
        raise KeyError

    monkeypatch.setattr("selfsup.comparison.tournament.Trial", measure)
    x = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    options: Any = {"tasks": "rotation", "encoder": "convnet", "out": tmp_path / "c", "quiet": True, "device": "cpu"}
    with pytest.raises(UserError, match="--batch-size must be at most 40, not 41"):
        selfsup.compare(x, batch_size=41, **options)
    with pytest.raises(UserError, match="no task"):  # none could be measured
        selfsup.compare(x, **options)
    assert taken == [40]
