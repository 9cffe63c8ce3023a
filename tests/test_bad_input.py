"""Bad input at the command line: one line that names the problem and the remedy, status 2, and nothing written."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from selfsup.cli import main
from selfsup.data.open import open_data
from selfsup.errors import UserError, unknown
from selfsup.tasks.resolve import resolve_task
from support.folders import MakeFolder

Told = Callable[..., str]
SMALL = ["--encoder", "convnet", "--steps", "2", "--batch-size", "4", "--quiet"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder, so that whatever is written is seen."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Told:
    """Return a function that runs a command, asserts how it ends, and returns the line that it said."""

    def run(*args: object, status: int = 2) -> str:
        before = _state(tmp_path)
        capsys.readouterr()
        assert main([str(arg) for arg in args]) == status
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("selfsup: ")
        assert err.count("\n") == 1, err
        assert "Traceback" not in err
        if status == 2:
            assert _state(tmp_path) == before, "something was written"
        return err

    return run


def _state(root: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_mtime_ns for path in root.rglob("*")}


# Data


def test_data_that_hold_no_images(told: Told, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.md").write_text("# no image")
    assert "no images below 'empty'" in told("pretrain", "empty", *SMALL)
    assert ".png" in told("pretrain", "texts", *SMALL)
    assert "did you mean 'texts'" in told("pretrain", "text", *SMALL)
    assert "give a folder" in told("pretrain", "texts/a.md", *SMALL)


def test_names_with_the_nearest(told: Told, finished_run: Path) -> None:
    assert "'rotation'" in told("pretrain", "digits", "--task", "rotatoin", *SMALL)
    assert "'convnet'" in told("pretrain", "digits", "--encoder", "convnett")
    assert "'resnet18'" in told("pretrain", "digits", "--encoder", "resnet_18")
    assert "'digits'" in told("pretrain", "digist", *SMALL)
    assert "'pretrain'" in told("pretain", "digits")
    assert "'adamw'" in told("pretrain", "digits", "--optimizer", "adam", *SMALL)
    assert "'bfloat16'" in told("pretrain", "digits", "--precision", "bfloat", *SMALL)
    assert "'cuda'" in told("pretrain", "digits", "--device", "cuda:0", *SMALL)
    assert "'linear'" in told("evaluate", finished_run, "--data", "digits", "--protocol", "knn,liner")
    assert "'onnx'" in told("export", finished_run, "--format", "onx")
    assert "'rotation'" in told("tasks", "rotatoin")
    assert "'rotation'" in told("show", "rotatoin", "digits")
    assert "no_such_module" in told("pretrain", "digits", "--task", "no_such_module:Task", *SMALL)
    assert "not a subclass" in told("pretrain", "digits", "--task", "os:path", *SMALL)
    assert "cannot load" in told("pretrain", "digits", "--task", ":", *SMALL)


def test_a_device_that_is_not_there(told: Told) -> None:
    assert "--device cuda" in told("pretrain", "digits", "--device", "cuda", *SMALL)


@pytest.mark.parametrize(
    ("given", "meant"),
    [("hidden", "hidden-dim"), ("queue", "queue-size"), ("scale", "min-scale"), ("local", "num-local-crops")],
)
def test_the_start_or_the_end_of_a_name_is_enough_to_suggest_it(given: str, meant: str) -> None:
    names = ["quiet", "labels", "size", "steps", "hidden-dim", "queue-size", "min-scale", "num-local-crops"]
    assert f"did you mean '--{meant}'" in str(unknown("option", f"--{given}", [f"--{name}" for name in names]))


# Options


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--pda", "3"], "'--pad'"),
        (["--num-classes", "3"], "unknown option of pretrain '--num-classes'"),
        (["--no-pad"], "'--pad'"),
        (["--stesp=3"], "'--steps'"),
        (["--task", "supervised", "--hidden-dim", "3"], "unknown option of pretrain '--hidden-dim'"),
        (["--task", "supervised", "--num-classes", "9"], "--num-classes 9 is less than the 10"),
        (["--pad", "x"], "--pad"),
        (["--flip", "half"], "--flip"),
        (["--flip", "nan"], "--flip must be a finite number, not nan"),
        (["--hidden-dim", "0"], "--hidden-dim must be in [1, inf), not 0"),
        (["--pad"], "--pad"),
        (["--lr", "fast"], "--lr takes a number, not 'fast'"),
        (["--steps", "1.5"], "--steps takes a whole number, not '1.5'"),
        (["--seed", "one"], "--seed takes a whole number, not 'one'"),
        (["--batch-size", "many"], "--batch-size"),
        (["more", "data"], "more, data"),
        (["--steps", "0"], "--steps must be a whole number from 1"),
        (["--steps", "-3"], "--steps must be a whole number from 1"),
        (["--epochs", "0"], "--epochs must be more than 0"),
        (["--epochs", "inf"], "--epochs must be more than 0 and at most"),
        (["--minutes", "-1"], "--minutes must be more than 0"),
        (["--minutes", "nan"], "--minutes must be more than 0"),
        (["--steps", "2", "--epochs", "3"], "only one of --steps, --epochs and --minutes"),
        (["--lr", "-0.1"], "--lr must be more than 0"),
        (["--lr", "nan"], "--lr must be more than 0"),
        (["--lr", "0"], "--lr must be more than 0"),
        (["--weight-decay", "-1"], "--weight-decay must be from 0"),
        (["--warmup", "1"], "--warmup must be at least 0 and less than 1"),
        (["--warmup", "-0.1"], "--warmup must be at least 0 and less than 1"),
        (["--warmup", "nan"], "--warmup must be at least 0 and less than 1"),
        (["--clip", "0"], "--clip must be more than 0"),
        (["--size", "0"], "--size must be a whole number from 8 to 4,096"),
        (["--size", "100000"], "--size must be a whole number from 8 to 4,096"),
        (["--channels", "0"], "--channels must be a whole number from 1 to 64"),
        (["--channels", "65"], "--channels must be a whole number from 1 to 64"),
        (["--workers", "-1"], "--workers must be a whole number from 0"),
        (["--seed", "-1"], "--seed must be a whole number from 0"),
        (["--seed", str(2**70)], "--seed must be a whole number from 0"),
        (["--batch-size", "1"], "--batch-size must be a whole number from 2"),
        (["--batch-size", "1798"], "--batch-size must be at most 1797"),
        (["--labels", "lables.csv"], "no label file 'lables.csv'"),
        (["--labels", "folders"], "digits has no folders"),
        (["--encoder", "convnet", "--pretrained"], "no pretrained weights"),
        (["--encoder", "inception_v4"], "inception_v4 cannot take 8 × 8 images"),
    ],
)
def test_options_of_pretrain(told: Told, args: list[str], message: str) -> None:
    assert message in told("pretrain", "digits", *args, "--out", "run", "--quiet")


def test_channels_that_the_data_do_not_have(told: Told, images: Path) -> None:
    assert "1, 3 or 4 channels, not 2" in told("pretrain", images, "--channels", "2", *SMALL)
    np.savez("two.npz", x=np.zeros((8, 8, 8, 2), np.uint8))
    assert "2 channels, which cannot become 3" in told("pretrain", "two.npz", "--channels", "3", *SMALL)


def test_missing_arguments(told: Told, finished_run: Path) -> None:
    assert "DATA is missing" in told("pretrain")
    assert "--data is missing" in told("evaluate", finished_run)
    assert "--foo" in told("--foo")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--count", "0"], "--count must be"),
        (["--size", "0"], "--size must be"),
        (["--seed", "-1"], "--seed must be"),
        (["--pda", "0"], "'--pad'"),
        (["--out", "x.txt"], "must end in .png"),
        (["--out", "missing/x.png"], "no such folder: missing"),
        (["--out", "file/x.png"], "no such folder: file"),
        (["--out", "folder.png"], "is a folder"),
    ],
)
def test_options_of_show(told: Told, args: list[str], message: str) -> None:
    Path("folder.png").mkdir()
    Path("file").write_text("")
    assert message in told("show", "rotation", "digits", *args)


# Labels


def test_labels(told: Told, images: Path, make_folder: MakeFolder) -> None:
    Path("labels.csv").write_text("path,label\ncat/0.png,cat\ncow/7.png,cow\n")
    assert "'cow/7.png'" in told("pretrain", images, "--task", "supervised", "--labels", "labels.csv", *SMALL)
    assert "needs labels: give --labels" in told("pretrain", images, "--task", "supervised", *SMALL)
    alone = make_folder("alone", classes=("cat",))
    assert "at least two classes" in told("pretrain", alone, "--task", "supervised", "--labels", "folders", *SMALL)


@pytest.fixture
def colour_run(images: Path) -> str:
    """Return a finished run on the folder `images`."""
    assert main(["pretrain", str(images), *SMALL, "--out", "colours"]) == 0
    return "colours"


def test_evaluation(told: Told, colour_run: str, make_folder: MakeFolder, images: Path) -> None:
    evaluate = ["evaluate", colour_run, "--quiet", "--data"]
    folders = [*evaluate, images, "--labels", "folders"]
    assert "give --labels" in told(*evaluate, images)
    assert "give --test-labels" in told(*folders, "--test", images)
    assert "50 labels per class" in told(*folders, "--shots", "50")
    assert "--shots" in told(*folders, "--shots", "0")
    assert "--shots" in told(*folders, "--shots", "few")
    assert "--draws must be a whole number from 2" in told(*folders, "--draws", "1")
    assert "one class" in told(*evaluate, make_folder("alone", classes=("cat",)), "--labels", "folders")
    assert "give --test" in told(*evaluate, make_folder("single", count=1), "--labels", "folders")
    Path("labels.csv").write_text("path,label\ncow/7.png,cow\n")
    assert "'cow/7.png'" in told(*evaluate, images, "--labels", "labels.csv")
    np.savez("two.npz", x=np.zeros((8, 8, 8, 2), np.uint8), y=np.arange(8) % 2)
    assert "2 channels, which cannot become 3" in told(*evaluate, "two.npz")
    assert "2 channels, which cannot become 3" in told("embed", colour_run, "two.npz", "--quiet")


# Run folders


def break_recipe(folder: Path, **changes: object) -> None:
    recipe = json.loads((folder / "recipe.json").read_text())
    (folder / "recipe.json").write_text(json.dumps(recipe | changes))


USES = [["evaluate", "run", "--data", "digits"], ["embed", "run", "digits"], ["export", "run"]]
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (shutil.rmtree, "no such folder"),
    "no recipe": (lambda run: os.remove(run / "recipe.json"), "it has no recipe.json"),
    "unfinished": (lambda run: os.remove(run / "encoder.safetensors"), "is unfinished: run the same"),
    "half a recipe": (lambda run: (run / "recipe.json").write_text('{"task": {'), "damaged"),
    "no text": (lambda run: (run / "recipe.json").write_bytes(b"\xff\xfe\x00"), "not text"),
    "a deep recipe": (lambda run: (run / "recipe.json").write_text("[" * 100_000), "damaged"),
    "a list": (lambda run: (run / "recipe.json").write_text("[]"), "damaged"),
    "no plan": (lambda run: break_recipe(run, plan={}), "lacks 'steps'"),
    "no precision": (lambda run: break_recipe(run, precision="float8"), "impossible precision"),
    "no size": (
        lambda run: break_recipe(run, spec={"kind": "image", "size": "8", "channels": 1, "mean": [0], "std": [1]}),
        "not whole numbers",
    ),
    "huge": (
        lambda run: break_recipe(run, spec={"kind": "image", "size": 10**9, "channels": 1, "mean": [0], "std": [1]}),
        "impossible",
    ),
    "std 0": (
        lambda run: break_recipe(run, spec={"kind": "image", "size": 8, "channels": 1, "mean": [0], "std": [0]}),
        "impossible spec",
    ),
    "three means": (
        lambda run: break_recipe(run, spec={"kind": "image", "size": 8, "channels": 1, "mean": [0] * 3, "std": [1]}),
        "impossible spec",
    ),
    "options": (
        lambda run: break_recipe(run, task={"name": "rotation", "hyperparameters": {"hiden": 3}}),
        "rotation cannot be made with {'hiden': 3}",
    ),
    "option of another type": (
        lambda run: break_recipe(run, task={"name": "rotation", "hyperparameters": {"hidden_dim": "3"}}),
        "rotation cannot be made with",
    ),
    "a huge option": (
        lambda run: break_recipe(run, task={"name": "rotation", "hyperparameters": {"hidden_dim": 10**15}}),
        "rotation cannot be made with",
    ),
    "encoder": (lambda run: break_recipe(run, encoder={"name": "convnext_9000"}), "unknown encoder"),
    "truncated": (lambda run: os.truncate(run / "encoder.safetensors", 1000), "encoder.safetensors was not written"),
    "empty": (lambda run: os.truncate(run / "encoder.safetensors", 0), "encoder.safetensors was not written"),
    "others' weights": (lambda run: break_recipe(run, encoder={"name": "resnet10t"}), "does not fit this model"),
}


@pytest.mark.parametrize("use", USES, ids=lambda use: use[0])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_run_that_cannot_be_used(told: Told, finished_run: Path, damage: str, use: list[str]) -> None:
    shutil.copytree(finished_run, "run")
    spoil, message = DAMAGE[damage]
    spoil(Path("run"))
    assert message in told(*use)


def test_a_recipe_never_names_code_to_import(finished_run: Path) -> None:
    shutil.copytree(finished_run, "run")
    Path("harmful.py").write_text("open('harmed', 'w')\nclass Task: ...\n")
    break_recipe(Path("run"), task={"name": "harmful:Task", "hyperparameters": {}})
    assert main(["export", "run"]) == 0
    assert not Path("harmed").exists()


def test_out_of_pretrain(told: Told, images: Path) -> None:
    Path("file").write_text("mine")
    Path("foreign").mkdir()
    Path("foreign", "thesis.txt").write_text("mine")
    Path("broken").mkdir()
    Path("broken", "recipe.json").write_text("{")
    for out, message in {
        "foreign": "is not a run folder; give another --out",
        "file": "is not a run folder; give another --out",
        "file/run": "is not a folder",
        "broken": "recipe.json is damaged",
    }.items():
        assert message in told("pretrain", images, *SMALL, "--out", out)


@pytest.mark.parametrize(("use", "name"), [("embed", "x.parquet"), ("export", "x.safetensors")])
def test_out_of_embed_and_export(told: Told, finished_run: Path, use: str, name: str) -> None:
    Path("file").write_text("mine")
    Path("folder").mkdir()
    args = [use, finished_run, *(["digits"] if use == "embed" else []), "--out"]
    assert "no such folder: missing" in told(*args, f"missing/{name}")
    assert "no such folder: file" in told(*args, f"file/{name}")
    assert "folder is a folder" in told(*args, "folder")


def test_a_run_with_another_recipe_shows_what_differs(told: Told, images: Path) -> None:
    assert main(["pretrain", str(images), *SMALL, "--out", "run"]) == 0
    line = told("pretrain", images, *SMALL, "--out", "run", "--lr", "0.5", "--flip", "0")
    assert "task.hyperparameters.flip: 0.5 here, 0.0 requested" in line
    assert re.search(r"plan\.lr: 0\.00\d+ here, 0\.5 requested", line)
    assert "plan.steps" not in line
    (images / "cat" / "9.png").symlink_to(images / "cat" / "0.png")
    assert "data.samples: 8 here, 9 requested" in told("pretrain", images, *SMALL, "--out", "run")


# Broken images


def spoil(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (folder / name).write_bytes((b"", b"no image", (folder / name).read_bytes()[:60])[number % 3])


def test_some_broken_images_are_named_once_and_counted(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(images, "cat/0.png", "cat/1.png", "dog/2.png")
    args = ["pretrain", str(images), "--encoder", "convnet", "--epochs", "6", "--batch-size", "4", "--out", "run"]
    assert main(args) == 0
    reason = r"1 (empty file|truncated|not an image)"
    told = capsys.readouterr().err
    assert re.search(r"step 12/12 .* · 3 left out\n", told)
    assert re.search(rf"3 samples could not be read, replaced by others \({reason}, {reason}, {reason}\); ", told)
    lines = [json.loads(line) for line in Path("run", "skipped.jsonl").read_text().splitlines()]
    reasons = {line["path"]: line["reason"] for line in lines}
    assert len(lines) == len(reasons) == 3
    assert reasons["cat/0.png"] == "empty file"
    assert reasons["cat/1.png"] == "not an image"
    assert set(reasons) == {"cat/0.png", "cat/1.png", "dog/2.png"}
    capsys.readouterr()
    assert main(["embed", "run", str(images), "--quiet", "--json"]) == 0
    embedded = json.loads(capsys.readouterr().out)
    assert (embedded["rows"], embedded["skipped"]) == (5, 3)
    assert set(pq.read_table("embeddings.parquet")["path"].to_pylist()).isdisjoint(reasons)


@pytest.mark.parametrize("use", ["pretrain", "embed", "evaluate"])
def test_more_than_half_broken_is_a_failed_run(told: Told, images: Path, colour_run: str, use: str) -> None:
    spoil(images, *(f"{label}/{i}.png" for label in ("cat", "dog") for i in range(3)))
    args = {
        "pretrain": [images, "--encoder", "convnet", "--epochs", "9", "--batch-size", "4", "--quiet"],
        "embed": [colour_run, images, "--quiet"],
        "evaluate": [colour_run, "--data", images, "--labels", "folders", "--quiet"],
    }[use]
    assert "more than half of" in told(use, *args, status=1)
    assert not Path("embeddings.parquet").exists()
    assert not [path for path in os.listdir() if path.startswith(".embeddings")]


def test_all_broken_is_a_failed_run(told: Told, images: Path) -> None:
    spoil(images, *(f"{label}/{i}.png" for label in ("cat", "dog") for i in range(4)))
    assert "cannot be read" in told("pretrain", images, *SMALL, status=1)
    assert "cannot be read" in told("show", "rotation", images, status=1)


@pytest.mark.parametrize(
    ("task", "option"), [("moco", "queue_size"), ("swav", "num_prototypes"), ("deepcluster", "num_clusters")]
)
def test_more_negatives_or_clusters_than_samples(task: str, option: str) -> None:
    digits, flag = open_data("digits"), option.replace("_", "-")
    with pytest.raises(UserError, match=f"--{flag} 5,000 is more than there are samples \\(1,797\\)"):
        resolve_task(task, digits, {option: 5000})
    assert resolve_task(task, digits.take(np.arange(70)), {})[2][option] == (70 if option == "queue_size" else 35)
    assert resolve_task(task, digits, {option: 1797})[2][option] == 1797


@pytest.mark.parametrize("task", ["instance", "deepcluster", "diet"])
def test_what_is_stored_for_each_sample_has_their_number(task: str) -> None:
    digits = open_data("digits")
    for wrong in (5, 5000):
        with pytest.raises(UserError, match=f"--num-items is the number of samples \\(1,797\\), not {wrong:,}"):
            resolve_task(task, digits, {"num_items": wrong})
    with pytest.raises(UserError, match="--num-items is the number of samples"):
        resolve_task("combined", digits, {"tasks": f"rotation,{task}", "options": {f"{task}.num_items": 5}})
    assert resolve_task(task, digits, {"num_items": 1797})[2]["num_items"] == 1797
