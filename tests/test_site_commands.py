"""Commands of the README, of pages on how to start, of some how-to pages and of the Korean ones run, on small data.

Budgets, encoders and protocols become small; everything else is as printed. What is not executed is in `NOT`, with why.
"""

import csv
import re
import shlex
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from selfsup.cli import main
from support.folders import write_images
from support.videos import write_video

ROOT = Path(__file__).parents[1]
NOT = {  # the beginning of a command: why it is not executed here
    "adapt photos/": "needs a network: the weights of timm (tests/test_adapt.py has files of weights)",
    "compare photos/": "takes an hour (tests/test_compare.py)",
    "compare mnist5k": "takes minutes (tests/test_compare.py)",
    "demo": "takes minutes (tests/test_examples.py has its parts)",
    "report runs/demo": "is of the demo",
    "index embeddings/": "is for very many embeddings (tests/test_neighbours.py)",
    "curate index/": "is of that index",
    "start photos/ --go": "takes at least five minutes (tests/test_start.py)",
    "explore": "serves a page until it is stopped, and needs a package that is not installed with the others",
    "label runs/mine photos/": "serves a page until it is stopped (tests/test_label_page.py)",
    "evaluate runs/mine --data photos/ --labels masks/": "needs masks (tests/test_dense.py)",
    "record Reacher-v5": "needs MuJoCo and minutes (tests/test_record.py)",
    "pretrain reach/": "is of that recording",
    "evaluate runs/reach": "is of that recording",
    "control rig PointRoom": "takes minutes (tests/test_control.py)",
    "pretrain mocap2": "needs PyBullet, which records for minutes (tests/test_tasks_control.py)",
    "evaluate runs/tcn": "is of those recordings",
    "pretrain speech/": "needs a corpus of speech, and hours",
    "evaluate runs/cpc": "is of that corpus",
    "audit arrow_of_time videos/": "takes as long as all others (tests/test_audit_video.py)",
    "report runs/order": "takes as long as all others (tests/test_report.py)",
    "pretrain moving --task tracking": "takes minutes (tests/test_video_tracks.py)",
    "export runs/mine --format onnx": "takes as long as all others (tests/test_export.py)",
}  # fmt: skip
EXACT = ("demo", "label runs/mine photos/")  # others go on in the same way
SMALL = {
    "pretrain": ["--steps", "2", "--batch-size", "8"],
    "audit": ["--steps", "2"],
    "evaluate": ["--draws", "2", "--no-scratch", "--protocol", "linear", "--shots", "2"],
    "report": ["--no-scratch"],
}  # options in place of what is printed
QUIET = ("pretrain", "audit", "evaluate", "report", "suggest", "label", "embed")
HOW_TO = ("large-batches", "loss", "own-data", "own-task")
CLASSES = ("apple", "bear", "cat", "dog")


def commands(pages: list[str]) -> Iterator[str]:
    """Yield each command of the fenced blocks of pages once, without the comments behind it."""
    seen = set()
    for page in pages:
        for block in re.findall(r"^```\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL):
            for line in re.findall(r"^selfsup (.*)$", block, re.MULTILINE):
                command = re.sub(r"\s+#.*$", "", line).strip()
                if command not in seen:
                    seen.add(command)
                    yield command


def left_out(command: str) -> str:
    """Return why a command is not executed, '' for one that is."""
    found = [
        why for start, why in NOT.items() if command == start or (start not in EXACT and command.startswith(start))
    ]
    return found[0] if found else ""


def small(command: str, encoder: str | None) -> list[str]:
    """Return the words of a command with a small budget."""
    words, given = shlex.split(command.replace("mnist5k", "digits")), {"--minutes", "--epochs"}  # which nothing fetches
    own = list(SMALL.get(words[0], ()))
    replaced = given | {word for word in own if word.startswith("--")} | ({"--encoder"} if encoder else set())
    if "states" in words:  # which are read in one way, and counted otherwise
        own = ["--draws", "2", "--shots", "20"]
    kept, skip = [], False
    for word in words:
        if not skip and word not in replaced:
            kept.append(word)
        skip = word in replaced
    if words[0] == "pretrain" and encoder and "--init" not in words:
        own += ["--encoder", encoder]
    return [*kept, *own, *(["--quiet"] if words[0] in QUIET else [])]


def fill_in(table: Path, label: Callable[[str], str]) -> None:
    """Give the labels that `suggest` asked for."""
    rows = list(csv.DictReader(table.open()))
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, "label": label(row["path"])} for row in rows)


def follow(pages: list[str], encoder: str | None = None) -> None:
    """Execute the commands of pages one after another, in this folder."""
    executed = 0
    for command in commands(pages):
        if left_out(command):
            continue
        words = small(command, encoder)
        if words[0] == "suggest":  # another page asked for labels too, and those that were given are never lost
            Path(words[words.index("-o") + 1]).unlink(missing_ok=True)
        assert main(words) == 0, f"selfsup {shlex.join(words)}"
        executed += 1
        if words[0] == "suggest":
            fill_in(Path(words[words.index("-o") + 1]), lambda path: re.split(r"[/\d]", path)[0])
    assert executed > 2


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("selfsup.data.trajectory.dot.COUNT", {False: 12, True: 6})


def test_images() -> None:
    write_images(Path("photos"), CLASSES, 17, 32)
    (Path("photos/apple/0.png")).rename("photos/one.jpg")
    names = sorted(str(path.relative_to("photos")) for path in Path("photos").glob("*/*.png"))
    for file, kept in {"labels.csv": names, "few.csv": names[::17]}.items():
        Path(file).write_text("path,label\n" + "".join(f"{name},{name.split('/')[0]}\n" for name in kept))
    follow(["README.md", "docs/start/install.md", "docs/start/images.md", *korean()], encoder="convnet")
    assert {"labels.png", "to-label.png", "all.csv", "nearest.png"} <= {path.name for path in Path().iterdir()}


def test_texts() -> None:
    pytest.importorskip("transformers", reason="encoders of texts: pip install 'selfsup[text]'")
    rng, words = np.random.default_rng(0), {name: [f"{name}{i}" for i in range(30)] for name in CLASSES}
    for name in CLASSES:
        for i in range(10):
            path = Path("articles") / name / f"{i}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(" ".join(rng.choice(words[name], 60)) + ". rates rise.\n")
    follow(["docs/start/texts.md"])


def test_sounds() -> None:
    pytest.importorskip("soundfile", reason="sounds: pip install 'selfsup[audio]'")
    for place, name in enumerate(CLASSES):
        for i in range(8):
            path = Path("sounds") / name / f"{i}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            sound = np.sin(np.arange(8000) * 0.05 * (place + 1)) * 8000 + np.random.default_rng(i).normal(0, 500, 8000)
            with wave.open(str(path), "wb") as file:
                file.setparams((1, 2, 16000, 0, "NONE", ""))
                file.writeframes(sound.astype("<i2").tobytes())
    follow(["docs/start/sounds.md"])


def test_clips() -> None:
    pytest.importorskip("av", reason="videos: pip install 'selfsup[video]'")
    for place, name in enumerate(CLASSES):
        for i in range(6):
            move = np.abs(np.arange(20) * (place + 1) + i) % 24
            frames = np.full((20, 32, 32, 3), 40 * place, np.uint8)
            for frame, at in zip(frames, move, strict=True):
                frame[at : at + 8, at // 2 : at // 2 + 8] = 250 - 20 * i
            write_video(Path("videos") / f"{name}{i}.mp4", frames)
    follow(["docs/start/clips.md"])


def test_how_to(monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(Path("photos"), CLASSES, 4, 32)
    write_images(Path("labelled"), CLASSES, 4, 32)
    mirror = re.search(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    assert mirror
    Path("mirror.py").write_text(mirror[1])
    monkeypatch.syspath_prepend(Path.cwd())
    follow([f"docs/howto/{name}.md" for name in HOW_TO], encoder="convnet")


def test_control() -> None:
    follow(["docs/start/control.md"])


def korean() -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs" / "ko").glob("*.md"))


def test_what_is_left_out_is_there_and_every_page_is_followed() -> None:
    start = [str(path.relative_to(ROOT)) for path in (ROOT / "docs" / "start").glob("*.md")]
    pages = ["README.md", *start, *korean(), *(f"docs/howto/{name}.md" for name in HOW_TO)]
    every = list(commands(pages))
    assert [start for start in NOT if not any(command.startswith(start) for command in every)] == []
    assert len([command for command in every if not left_out(command)]) > len(every) / 2
