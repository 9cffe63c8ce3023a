"""Write docs/survey/: every method, section by section, from the catalogue, the gallery, the results and ideas.toml.

    python docs/survey.py

Only the ideas are written by hand (docs/survey/ideas.toml). Numbers are rows of tables that other pages of docs/ have.
"""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from selfsup.tasks import find_task
from selfsup.tasks.catalogue import SECTIONS, Entry, catalogue

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULTS = (
    "results.md", "text.md", "video.md", "audio.md", "control.md", "foundation.md", "dense.md", "semi-supervised.md",
    "notes.md",
)  # fmt: skip
DATA = {
    "image": "emoji:train",
    "any": "emoji:train",
    "video": "moving",
    "audio": "melody",
    "text": "bbc.jsonl",
    "trajectory": "dot",
}
BASELINES = (
    r"\**(untrained|raw pixels|pixels|from scratch|random actions|colour histogram|TF-IDF|PCA of|one log-mel|chance)"
)
NUMBER = re.compile(r"[*+−-]*\d+\.\d+(, \d+\.\d+)*( ± \d+\.\d+)?[*%]*")
CITED = re.compile(r" \([^()]*\b(19|20)\d\d\b[^()]*\)")  # the paper has a row of its own
COUNTERS = re.compile(r"Counter-measures[^:\n]*:\s+(.*?)(?=\n\n|\nBatch:|\Z)", re.DOTALL)


class Measured(NamedTuple):
    """Rows of one table of the results: those of a task, and those of its baselines."""

    page: str
    heading: str
    head: list[str]
    rows: list[list[str]]


def read_ideas() -> dict[str, Any]:
    """Return the hand-written part: `sections`, and of each task its `idea` and where needed `trap` and `command`."""
    return tomllib.loads((HERE / "survey" / "ideas.toml").read_text())


def slug(section: str) -> str:
    return re.sub(r"\W+", "-", section)


def anchor(heading: str) -> str:
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def tables() -> Iterator[Measured]:
    """Return every table of the pages of results with its heading."""
    for page in RESULTS:
        heading, rows = "", list[list[str]]()
        for line in [*(HERE / page).read_text().splitlines(), ""]:
            if line.startswith("|"):
                rows.append([cell.strip() for cell in line.strip("|").split("|")])
            elif rows:
                yield Measured(page, heading, rows[0], rows[2:])
                rows = []
            if line.startswith("#"):
                heading = line.lstrip("# ").strip()


def measured(task: str, known: list[Measured]) -> list[Measured]:
    """Return what was measured of a task: its rows in each table, at most three, and those to compare them with."""
    mine = re.compile(rf"\**(latents of )?(`{task}[` ]|{task} \()")
    found = []
    for table in known:
        rows = [row for row in table.rows if mine.match(row[0]) and any(map(NUMBER.fullmatch, row[1:]))][:3]
        if task in table.head[1:]:  # the methods are columns
            found.append(table)
        if not rows:
            continue
        if table.head[1] in ("encoder", "data"):  # untrained is an encoder's own row
            same = {row[1] for row in rows} | {""}
            others = [row for row in table.rows if re.match(BASELINES, row[0]) and row[1] in same]
        else:
            others = [row for row in table.rows if re.match(BASELINES, row[0])]
        found.append(Measured(table.page, table.heading, table.head, rows + others[:4]))
    return found


def show_measured(found: list[Measured], wanted: str) -> list[str]:
    """Return the rows of the wanted table, or the first one, and links to the other ones.

    `wanted` may also be a place, `page.md#heading`, that says in words what was measured.
    """
    if "#" in wanted:
        return [f"**Measured here:** [{wanted.partition('.')[0]}](../{wanted}) says what, and with which command.", ""]
    if not found:
        return ["**Measured here:** not measured yet.", ""]
    chosen = next((table for table in found if wanted and wanted in table.heading), found[0])
    links = {f"[{t.heading}](../{t.page}#{anchor(t.heading)})": None for t in found if t is not chosen}
    source = f"[{chosen.heading}](../{chosen.page}#{anchor(chosen.heading)})"
    lines = [f"**Measured here** ({source}, where the command and the protocol are):", ""]
    lines += [f"| {' | '.join(row)} |" for row in [chosen.head, ["---"] * len(chosen.head), *chosen.rows]]
    return [*lines, "", *([f"More: {', '.join(links)}.", ""] if links else [])]


def image(task: str) -> list[str]:
    """Return the gallery's image of a task and the command that draws it."""
    part = re.search(rf"### {task}\n(.*?)(?=\n##|\Z)", (HERE / "gallery.md").read_text(), re.DOTALL)
    if part is None or not (HERE / "gallery" / f"{task}.webp").exists():
        return []
    drawn = re.search(r"^`selfsup show.*", part[1], re.MULTILINE)
    return [f"![What {task} sees](../gallery/{task}.webp)", "", *([f"Drawn by {drawn[0]}.", ""] if drawn else [])]


def command(task: Entry) -> str:
    """Return a command that runs a task on built-in data, with its small encoder."""
    about = f"--task {task.name} --encoder {find_task(task.name).small_encoder}"
    return f"selfsup pretrain {DATA[task.kind]} {about} --minutes 10 --out runs/{task.name}"


def options(task: Entry) -> list[str]:
    if not task.options:
        return []
    lines = [
        "<details markdown><summary>Options</summary>",
        "",
        "| option | default | range | what it is |",
        "| --- | --- | --- | --- |",
    ]
    for name, option in task.options.items():
        default = "automatic" if option.default is None else f"`{option.default}`" if option.default != "" else ""
        reach = option.range.text.replace("|", r"\|") if option.range else ""
        lines.append(
            f"| `--{name.replace('_', '-')}` | {default} | {reach} | {option.help.replace('|', chr(92) + '|')} |"
        )
    return [*lines, "", "</details>", ""]


def method(task: Entry, own: dict[str, Any], known: list[Measured]) -> list[str]:
    """Return the part of a page that is about one method."""
    first, *_ = task.text.splitlines()
    counters = COUNTERS.search(task.text)
    trap = " ".join([own.get("trap", ""), " ".join(counters[1].split()) if counters else ""]).strip()
    facts = {
        "Paper": task.paper or "none",
        "What it predicts": CITED.sub("", first),
        "Trap and counter-measure": trap,
        "Options against shortcuts": task.facts.get("counter-measures", ""),
        "Encoder": task.facts["encoder"],
        "Batch": task.facts["batch"],
        "Published": task.facts.get("published", "no figure"),
        "Deviations": task.facts.get("deviations", ""),
    }
    path = Path(inspect.getfile(find_task(task.name))).resolve().relative_to(ROOT.resolve())
    facts["The whole method"] = f"[{path.name}](../../{path}), one file"
    lines = [
        f"## {task.name}",
        "",
        own.get("idea", "").strip() or "No idea has been written yet.",
        "",
        *image(task.name),
    ]
    told = [f"| {fact} | {words.replace('|', chr(92) + '|')} |" for fact, words in facts.items() if words]
    lines += [told[0], "| --- | --- |", *told[1:], ""]
    lines += ["```", own.get("command") or command(task), "```", ""]
    return [*lines, *show_measured(measured(task.name, known), own.get("measured", "")), *options(task)]


def pages() -> dict[str, str]:
    """Return the text of every page by the name of its file."""
    ideas, entries, known = read_ideas(), catalogue(), list(tables())
    sections = [section for section in SECTIONS if any(task.section == section for task in entries)]
    told = "<!-- written by docs/survey.py: change ideas.toml, a docstring or a page of results, not this file -->"
    index = [told, "", "# The survey, section by section", "", ideas["about"].strip(), ""]
    found = {}
    for section in sections:
        about = ideas["sections"].get(section, {})
        title, tasks = about.get("title", section), [task for task in entries if task.section == section]
        name = f"{slug(section)}.md"
        index += [f"## [{title}]({name})", "", about.get("about", "").strip(), ""]
        index += [f"- [`{task.name}`]({name}#{anchor(task.name)}): {task.text.splitlines()[0]}" for task in tasks] + [
            ""
        ]
        lines = [told, "", f"# {title}", "", about.get("about", "").strip(), "", f"**When:** {SECTIONS[section]}.", ""]
        for task in tasks:
            lines += method(task, ideas["tasks"].get(task.name, {}), known)
        found[name] = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"
    return {"index.md": re.sub(r"\n{3,}", "\n\n", "\n".join(index)).rstrip() + "\n"} | found


def main() -> None:
    written = pages()
    for path in (HERE / "survey").glob("*.md"):
        if path.name not in written:
            path.unlink()
    for name, text in written.items():
        (HERE / "survey" / name).write_text(text)
    print(f"{len(written)} pages in {HERE / 'survey'}")


if __name__ == "__main__":
    main()
