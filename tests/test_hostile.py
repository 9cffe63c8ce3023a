"""Files from strangers: nothing in them is run, nothing leads out, nothing takes memory before it is checked."""

from __future__ import annotations

import ast
import json
import os
import resource
import shutil
import signal
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from lightning_fabric.plugins import Precision
from PIL import Image
from safetensors.torch import save_file

import selfsup
from selfsup.data.open import open_data
from selfsup.errors import UserError
from selfsup.reports.finding import find_samples
from selfsup.reports.page import page
from selfsup.reports.story import skipped
from selfsup.run import Run, fits
from support.browser import browser, chromium
from support.folders import MakeFolder
from torture.formats import FORMATS
from torture.fuzz import attempt

SOURCE = Path(selfsup.__file__).parent
LOADERS = {  # what can run code that a file holds; of numpy's only with allow_pickle, which is looked at below
    "pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "torch.load", "eval", "exec",
    "compile", "__import__", "pd.read_pickle", "pandas.read_pickle", "yaml.load", "runpy",
}  # fmt: skip
ALLOWED = {
    ("cli.py", "eval"),  # of annotations in our own source
    ("weights.py", "pickle"),  # its error alone
    ("weights.py", "torch.load"),  # with weights_only; see `test_adapt.test_weights_that_do_not_fit_are_refused`
}


def _calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def _suspects(text: str) -> set[str]:
    """Return the names of what could run code out of a file in a module's source."""
    tree = ast.parse(text)
    found = {name for name, _ in _calls(tree) if name in LOADERS or name.split(".")[0] in LOADERS}
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        module = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found |= {name for name in names + module if name.split(".")[0] in LOADERS}
        if isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{name}" for name in names} & LOADERS
    for name, call in _calls(tree):
        words = {keyword.arg: keyword.value for keyword in call.keywords}
        pickles = words.get("allow_pickle")
        if name in ("np.load", "numpy.load") and pickles is None:
            found.add(f"{name} without allow_pickle")
        if pickles is not None and not (isinstance(pickles, ast.Constant) and pickles.value is False):
            found.add(f"{name} with allow_pickle")
        if "trust_remote_code" in words:
            found.add(f"{name} with trust_remote_code")
    return found


def test_no_loader_that_can_run_what_a_file_holds() -> None:
    found = {(path.name, name) for path in SOURCE.rglob("*.py") for name in _suspects(path.read_text(encoding="utf-8"))}
    assert found <= ALLOWED


@pytest.mark.parametrize(
    "text",
    [
        "import pickle", "from torch import load", "import torch\ntorch.load('x')", "import numpy as np\nnp.load('x')",
        "np.load('x', allow_pickle=True)", "read_array(f, allow_pickle=yes)", "eval('1')", "from joblib import load",
        "import dill.source", "M.from_pretrained('x', trust_remote_code=True)",
    ],
)  # fmt: skip
def test_the_scan_finds_them(text: str) -> None:
    assert _suspects(text)


# Run folders


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def edit(run: Path, **changes: object) -> None:
    recipe = json.loads((run / "recipe.json").read_text())
    (run / "recipe.json").write_text(json.dumps(recipe | changes))


@pytest.mark.parametrize(
    "name", ["evaluation.json", "checkpoint/latest.safetensors", "checkpoint", "metrics.jsonl", "encoder.safetensors"]
)
def test_links_do_not_lead_out_of_a_run_folder(run: Path, tmp_path: Path, name: str) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    place = run / name
    shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
    place.symlink_to(precious)
    with pytest.raises(UserError, match=r"is a link that leads out of the run folder"):
        Run(run)
    assert precious.read_text() == "mine"


def test_links_within_and_to_a_run_folder_are_fine_and_a_pipe_is_not(run: Path, tmp_path: Path) -> None:
    (run / "checkpoint" / "best.safetensors").symlink_to("latest.safetensors")
    (tmp_path / "link").symlink_to(run)
    Run(tmp_path / "link").load()
    os.mkfifo(run / "evaluation.json")
    with pytest.raises(UserError, match="neither a file nor a folder"):
        Run(run)


def test_a_model_larger_than_its_weights_takes_no_memory(run: Path) -> None:
    edit(run, task={"name": "rotation", "hyperparameters": {"hidden_dim": 500_000_000}})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match="does not fit this model"):
        Run(run).load_task()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_a_task_that_is_not_ours_is_not_imported(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "harmful.py").write_text("open('harmed', 'w')\n")
    edit(run, task={"name": "harmful:Task", "hyperparameters": {}})
    with pytest.raises(UserError, match="give its class"):
        Run(run).load_task()
    Run(run).load()
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"plan": {"steps": 10**12}}, "impossible plan"),
        ({"data": 3}, "impossible data"),
        ({"versions": []}, "impossible versions"),
        ({"task": {"name": "rotation", "hyperparameters": []}}, "impossible task"),
    ],
)
def test_recipes_are_checked(run: Path, changes: dict[str, object], message: str) -> None:
    edit(run, **changes)
    with pytest.raises(UserError, match=message):
        Run(run)


def test_what_an_option_may_be() -> None:
    assert fits(3, int)
    assert fits(3, float)
    assert fits(None, int | None)
    assert fits("a", str)
    assert fits([1, 2], tuple[int, ...])
    assert not fits(True, int)
    assert not fits(10**40, int)
    assert not fits("3", int)
    assert not fits(float("inf"), float)
    assert not fits(None, float)
    assert not fits({"a": 1}, tuple[int, ...])


def test_a_checkpoint_of_something_else(run: Path) -> None:
    path = run / "checkpoint" / "latest.safetensors"
    save_file({"task.head.0.weight": torch.zeros(2)}, path, {"selfsup": "[]"})
    with pytest.raises(UserError, match=r"does not fit this model|was not written by selfsup"):
        Run(run).load_task()
    header = json.dumps({"x": {"dtype": "F32", "shape": [10**13], "data_offsets": [0, 4 * 10**13]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(UserError, match="was not written by selfsup"):
        Run(run).load_task()


def test_a_checkpoint_that_lacks_a_number_of_the_optimizer(run: Path) -> None:
    from selfsup.train.checkpoint import load_tensors, restore
    from selfsup.train.optim import build_optimizer

    path = run / "checkpoint" / "latest.safetensors"
    tensors, _ = load_tensors(path)
    task = Run(run).load_task()[0]
    optimizer = build_optimizer(task, "adamw", 1e-3, 0.05)
    restore(tensors, task, optimizer, Precision(), path)
    with pytest.raises(UserError, match="other numbers of one parameter than of another"):
        restore({k: v for k, v in tensors.items() if k != "optimizer.0.step"}, task, optimizer, Precision(), path)


# Arrays and tables


def npz(path: Path, header: bytes, compressed: int = zipfile.ZIP_STORED) -> Path:
    """Write an array that promises what `header` says and holds a hundred bytes."""
    header = header.ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w", compressed) as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0" * 100)
    return path


@pytest.mark.parametrize("compressed", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("shape", ["(2000000000, 2, 2)", "(99999999999999, 8, 8)", "(-1, 8, 8)"])
def test_an_array_that_promises_too_much_takes_no_memory(tmp_path: Path, shape: str, compressed: int) -> None:
    path = npz(tmp_path / "a.npz", f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}".encode(), compressed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"not a readable \.npz file"):
        open_data(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_an_array_that_packs_well_is_read(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((3000, 28, 28), np.uint8))  # 1000 times smaller
    assert len(open_data(tmp_path / "a.npz")) == 3000


def test_images_are_found_only_where_the_data_are(tmp_path: Path, make_folder: MakeFolder) -> None:
    inside, secret = make_folder("inside"), make_folder("secret") / "cat" / "0.png"
    paths = ["cat/0.png", str(secret), "../secret/cat/0.png", "cat/../../secret/cat/0.png", "\0", "dog/1.png"]
    shown = [image is not None for image in find_samples(str(inside), paths, 8)]
    assert shown == [True, False, False, False, False, True]
    (tmp_path / "list.txt").write_text("inside/cat/1.png\n")
    listed = find_samples(str(tmp_path / "list.txt"), ["inside/cat/1.png", "inside/cat/0.png", str(secret)], 8)
    assert [image is not None for image in listed] == [True, False, False]


def test_an_embedding_file_that_promises_too_much(tmp_path: Path) -> None:
    from selfsup.data.vectors import VectorFile

    wide = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(1 << 17, np.float32)), 1 << 17)
    pq.write_table(pa.table({"path": ["a"], "vector": wide}), tmp_path / "wide.parquet")
    with pytest.raises(UserError, match="numbers"):
        VectorFile(tmp_path / "wide.parquet")


def test_what_ends_the_process_ends_a_copy_of_it() -> None:
    from selfsup.data.vectors import in_a_copy

    assert in_a_copy(lambda: 3) == 3
    assert in_a_copy(lambda: os.kill(os.getpid(), signal.SIGKILL)) is None
    assert in_a_copy(lambda: 1 // 0) is None


@pytest.mark.parametrize("promised", [2, 4, 10_000])
def test_an_embedding_file_with_other_rows_than_it_promises(tmp_path: Path, promised: int) -> None:
    from selfsup.data.vectors import VectorFile

    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"path": ["a", "b", "c"], "vector": [[1.0, 2.0]] * 3}), path)
    file = VectorFile(path)
    assert file.names([0, 2]) == [("a", None), ("c", None)]
    file.__class__ = type("Other", (VectorFile,), {"__len__": lambda self: promised})
    with pytest.raises(UserError, match=f"3 of its {promised:,} rows are there"):
        file.names([0, promised - 1])


# The report

NAME = "<script>alert(1)</script>.png"


@browser
def test_every_name_is_text_in_a_browser(tmp_path: Path) -> None:
    reason = '"><img src=x onerror="document.title=\'harmed\'">'
    written = page("<title>", "</style><script>document.title='harmed'</script>", [
        skipped([{"path": NAME, "reason": reason}, {"path": "\udce9\n&amp;", "reason": "</table>"}])
    ])  # fmt: skip
    path = tmp_path / "report.html"
    path.write_bytes(written)
    shown = chromium(path, "--dump-dom")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;.png" in shown
    assert "<title>&lt;title&gt;</title>" in shown
    assert "<script>alert" not in shown
    assert "<img src=" not in shown
    assert shown.count("<script") == 1  # the page's own


def test_a_whole_report_of_hostile_names(tmp_path: Path, finished_run: Path) -> None:
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    data = tmp_path / "<b>data"
    for number in range(6):
        place = data / ("<script>alert(1)<", "<img src=x onerror=alert(1)>")[number % 2] / f"script>{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 40 * number).save(place)
    edit(run, command="</code><script>alert(1)</script>", versions={"<script>": "<script>"})
    (run / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 1.0, "<script>alert(1)</script>": 2.0}) + "\n")
    written = selfsup.report(run, data=str(data), labels="folders", scratch=False, device="cpu", quiet=True).path
    text = written.read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert text.count("<script>") == 1
    assert "onerror=alert(1)>" not in text


# Fuzzing, in short


@pytest.mark.parametrize("name", FORMATS)
def test_a_few_mutated_files(name: str, tmp_path: Path) -> None:
    case = FORMATS[name](tmp_path)
    outcomes = [attempt(case, seed) for seed in range(20)]
    assert not [outcome for outcome in outcomes if "failure" in outcome]
