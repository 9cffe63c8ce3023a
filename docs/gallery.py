"""Build docs/gallery.md and its images: what every task sees, its free labels, and what a trained run predicts.

    python docs/gallery.py [--data emoji:test] [--runs runs/] [--tasks a,b]

For a task that has a run folder below `--runs`, its prediction is shown as well; otherwise only input and labels.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageSequence

import selfsup
from selfsup.data.open import open_data
from selfsup.errors import UserError
from selfsup.source import Source
from selfsup.tasks.catalogue import Entry

HERE = Path(__file__).parent
LARGEST, CLIPS = 30_000, 120_000  # bytes of an image, and of an animation
IDEAS = "text:ideas.txt"
BY_KIND = {"video": "moving", "audio": "melody", "trajectory": "dot", "text": IDEAS}
RECORDED = {"tcn": "reacher2", "mftcn": "reacher2", "grasp2vec": "tray"}  # by tasks that compare cameras
EPISODES = 6  # of these, which are enough to draw three


def runs_by_task(folder: Path | None) -> dict[str, Path]:
    recipes = sorted(folder.rglob("recipe.json")) if folder else []
    return {json.loads(path.read_text())["task"]["name"]: path.parent for path in recipes}


def opened(data: str, scratch: Path) -> Source:
    """Return data; the ideas of the survey, a line each, are the texts, and of a recording there are a few episodes."""
    if data == IDEAS:
        ideas = tomllib.loads((HERE / "survey" / "ideas.toml").read_text())["tasks"].values()
        (scratch / "ideas.txt").write_text("\n".join(" ".join(one["idea"].split()) for one in ideas) + "\n")
        return open_data(f"text:{scratch / 'ideas.txt'}")
    if data in RECORDED.values():
        return open_data(str(selfsup.record(data, out=scratch / data, episodes=EPISODES, quiet=True).path))
    return open_data(data)


def save_small(drawn: Path, out: Path) -> None:
    image = Image.open(drawn)
    first, *others = [frame.convert("RGB") for frame in ImageSequence.Iterator(image)]
    time = {"save_all": True, "append_images": others, "duration": image.info["duration"], "loop": 0} if others else {}
    for quality in (85, 70, 55, 40, 25, 10):
        first.save(out, quality=quality, method=6, **time)
        if out.stat().st_size <= (CLIPS if others else LARGEST):
            return


def entry(task: Entry, data: str, run: Path | None, folder: Path) -> list[str]:
    first, *_ = task.text.splitlines()
    paper = f" {task.paper}." if task.paper and task.paper[-4:] not in first else ""
    lines = [f"### {task.name}", "", first + paper, ""]
    out = folder / f"{task.name}.webp"
    with tempfile.TemporaryDirectory() as scratch:
        drawn, needed = Path(scratch) / ("show.webp" if task.kind == "video" else "show.png"), {}
        try:
            if run is None and task.name in NEEDED:
                needed = NEEDED[task.name](Path(scratch), data)
            selfsup.show(task.name, opened(data, Path(scratch)), out=drawn, count=3, run=run, **needed)
        except UserError as error:
            return [*lines, f"No image: {error}.", ""]
        save_small(drawn, out)
    return [*lines, f"![{task.name}]({folder.name}/{out.name})", "", command(task.name, data, run, needed), ""]


def style_table(folder: Path, data: str) -> dict[str, str]:
    """Return the options of a task that reads a table: whose drawing each emoji is."""
    table, styles = folder / "styles.csv", ("Noto", "Twemoji", "Fluent")
    rows = [f"{i},{styles[i % 3]}" for i in range(len(open_data(data)))]
    table.write_text("\n".join(["path,style", *rows]))
    return {"table": str(table), "suppress": "style"}


def small_teacher(folder: Path, data: str) -> dict[str, str]:
    """Return the options of a task that learns from another encoder: a run of a few steps."""
    training = data.replace(":test", ":train")
    run = selfsup.pretrain(
        open_data(training), encoder="convnet", size=32, steps=30, out=folder / "rotation", quiet=True
    )
    return {"teacher": str(run.folder)}


NEEDED = {"metadata": style_table, "distill": small_teacher}  # by tasks that need more than data


def command(task: str, data: str, run: Path | None, needed: Mapping[str, str]) -> str:
    """Return the command that draws the image, and how the run was trained."""
    if run is None:
        more = "".join(f" --{name} {Path(value).name}" for name, value in needed.items())
        return f"`selfsup show {task} {data}{more}`"
    recipe = json.loads((run / "recipe.json").read_text())
    trained = f"{recipe['plan']['steps']:,} steps of {recipe['plan']['batch_size']} on `{recipe['data']['name']}`"
    return f"`selfsup show {task} {data} --run {run}`, after {trained} with `{recipe['encoder']['name']}`"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="emoji:test")
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--tasks", help="redraw only these")
    options = parser.parse_args()
    folder = HERE / "gallery"
    folder.mkdir(exist_ok=True)
    page, wanted = HERE / "gallery.md", options.tasks.split(",") if options.tasks else None
    before = page.read_text() if page.exists() else ""
    kept = {m[1]: m[0].splitlines() for m in re.finditer(r"### (\w+)\n.*?(?=\n##|\Z)", before, re.DOTALL)}
    runs = runs_by_task(options.runs)
    others = "those for videos on `moving`, for recordings on `melody`, for texts on the ideas of the survey"
    about = f"Every task on `{options.data}`, {others}; built by `python docs/gallery.py`."
    lines = ["# Gallery", "", about, ""]
    section = ""
    for task in selfsup.list_tasks():
        if task.section != section:
            section = task.section
            lines += [f"## {section[0].upper()}{section[1:]}", ""]
        if wanted is not None and task.name not in wanted:
            lines += [*kept.get(task.name, ()), ""]
        else:
            data = RECORDED.get(task.name) or BY_KIND.get(task.kind, options.data)
            lines += entry(task, data, runs.get(task.name), folder)
            print(task.name, flush=True)
    page.write_text(re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n")


if __name__ == "__main__":
    main()
