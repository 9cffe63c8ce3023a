"""start: what it says of the data, what it proposes, and that its commands are those it runs."""

import json
import shlex
from pathlib import Path

import pytest
from PIL import Image

import selfsup
from selfsup.cli import main
from selfsup.commands.start import PROPOSALS
from support.folders import MakeFolder


def test_it_says_what_the_data_are_and_how_to_go_on(images: Path, tmp_path: Path) -> None:
    (images / "cat" / "copy.png").write_bytes((images / "cat" / "0.png").read_bytes())
    (images / "dog" / "broken.png").write_bytes(b"no image")
    Image.new("RGB", (20, 30)).save(images / "dog" / "tall.png")
    found = selfsup.start(images, minutes=3, out=tmp_path / "s", quiet=True)
    told = "\n".join(found.facts)
    assert "11 samples" in told
    assert "of 16 to 30 × 16 to 20 × 3" in told
    assert "1 is a copy of another one" in told
    assert "1 cannot be read: dog/broken.png (not an image)" in told
    assert "if the folders are classes (cat, dog), give --labels folders" in told
    assert any("--pretrained" in reason for reason in found.reasons)
    assert [shlex.split(command)[1] for command in found.commands] == ["show", "pretrain", "suggest", "report"]
    assert "--minutes 3" in found.commands[1]
    assert not (tmp_path / "s").exists()


def test_go_runs_the_commands(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "s"
    words = ["start", images, "--minutes", 0.01, "--out", out, "--quiet", "--device", "cpu"]
    assert main([str(word) for word in [*words, "--go", "--json"]]) == 0
    assert json.loads(capsys.readouterr().out)["done"]
    for name in ("views.png", "run/encoder.safetensors", "to-label.csv", "to-label.png", "report.html"):
        assert (out / name).stat().st_size > 50, name
    (out / "to-label.csv").write_text("path,label\ncat/0.png,cat\ndog/0.png,dog\n")
    words.remove("--quiet")
    assert main([str(word) for word in [*words, "--go"]]) == 0
    told = capsys.readouterr()
    assert "to-label.csv is there already, and stays as it is" in told.err
    command = told.out.partition("label the rest:\n")[2].replace(" \\\n", " ")
    assert main(shlex.split(command)[1:]) == 0, "what it says to do then is understood"
    said = capsys.readouterr().err
    assert "have a label" in said
    assert "Few-label numbers were not measured: no class" in said
    assert "cat/0.png,cat" in (out / "to-label.csv").read_text(), "labels are not lost"


def test_with_labels_the_rest_is_labelled(make_folder: MakeFolder) -> None:
    found = selfsup.start(make_folder(), labels="folders", quiet=True)
    assert "8 labels of 2 classes" in "\n".join(found.facts)
    assert "--labels folders" in found.commands[2]
    assert found.commands[2].startswith("selfsup label ")


def test_texts_get_a_task_for_texts(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    (tmp_path / "t.txt").write_text("".join(f"a sentence about thing {i} .\n" for i in range(40)))
    command = selfsup.start(f"text:{tmp_path / 't.txt'}", quiet=True).commands[1]
    assert f"--task {PROPOSALS['text'].task} --encoder {PROPOSALS['text'].small}" in command


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "one").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "one" / "a.png")
    (tmp_path / "bad").mkdir()
    for name in "ab":
        (tmp_path / "bad" / f"{name}.png").write_bytes(b"no image")
    for words, told in (
        (["nowhere"], "unknown folder"),
        ([str(tmp_path / "one")], "nothing to learn from"),
        ([str(tmp_path / "bad")], "can be read"),
        (["digits", "--minutes", "0"], "--minutes"),
    ):
        assert main(["start", *words, "--quiet"]) == 2
        error = capsys.readouterr().err
        assert told in error
        assert error.count("\n") == 1
