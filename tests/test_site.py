"""The documentation site: what is generated is fresh, translations follow, commands parse, and nothing is left out."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tyro
import yaml

from selfsup import cli
from selfsup.errors import UserError
from selfsup.tasks import TASKS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))
PAGES = sorted(path for path in DOCS.rglob("*.md"))


class Parsed(Exception):
    """The arguments of a command were understood."""


@pytest.fixture(scope="module")
def survey() -> Any:
    import survey

    return survey


def test_the_survey_is_what_the_catalogue_and_the_results_say(survey: Any) -> None:
    stale = [name for name, text in survey.pages().items() if (DOCS / "survey" / name).read_text() != text]
    assert not stale, "run `python docs/survey.py`"
    assert {path.name for path in (DOCS / "survey").glob("*.md")} == set(survey.pages())


def test_every_task_has_its_idea_in_five_sentences(survey: Any) -> None:
    ideas = survey.read_ideas()["tasks"]
    missing = sorted(set(TASKS) - set(ideas))
    assert not missing, f"write five sentences on {missing} in docs/survey/ideas.toml"
    assert not set(ideas) - set(TASKS), "of tasks that are gone"
    sentences = {name: len(re.findall(r"[.?!](?=\s|$)", own["idea"])) for name, own in ideas.items()}
    assert {name: count for name, count in sentences.items() if count != 5} == {}


def test_every_task_has_its_image_in_the_gallery_and_in_the_survey() -> None:
    gallery = (DOCS / "gallery.md").read_text()
    survey = "".join(path.read_text() for path in (DOCS / "survey").glob("*.md"))
    for task in TASKS:
        assert (DOCS / "gallery" / f"{task}.webp").exists(), f"run `python docs/gallery.py --tasks {task}`"
        assert f"(gallery/{task}.webp)" in gallery
        assert f"(../gallery/{task}.webp)" in survey


def test_the_survey_measures_nothing_itself(survey: Any) -> None:
    known = list(survey.tables())
    rows = {page: re.sub(r"[ |]+", " ", (DOCS / page).read_text()) for page in survey.RESULTS}
    found = {task: survey.measured(task, known) for task in TASKS}
    for tables in found.values():
        for table in tables:
            assert all(re.sub(r"[ |]+", " ", " ".join(row)).strip() in rows[table.page] for row in table.rows)
    assert {task for task, tables in found.items() if tables} > {
        "rotation",
        "dino",
        "tracking",
        "tcn",
        "declutr",
        "rig",
    }


def test_the_page_of_the_command_line_is_what_the_signatures_say() -> None:
    import cli as page

    assert page.PAGE.read_text() == page.page(), "run `python docs/cli.py`"


def test_every_page_is_in_the_navigation() -> None:
    named = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text()))
    assert {str(path.relative_to(DOCS)) for path in PAGES} == named


def test_korean_pages_follow_the_english_ones() -> None:
    import korean

    assert {path.name for path in (DOCS / "ko").glob("*.md")} == set(korean.PAGES)
    noted = json.loads(korean.NOTED.read_text())
    behind = [name for name, digests in korean.digests().items() if noted.get(name) != digests]
    assert not behind, "translate what changed, then run `python docs/korean.py`"
    assert korean.digest("97.2 ± 0.3% of 4,000") == korean.digest("96 ± 12.0% of 300"), "numbers do not count"
    tour = (DOCS / "ko" / "survey.md").read_text()
    assert [task for task in TASKS if f"[`{task}`]" not in tour] == []


def test_messages_of_the_troubleshooting_page_are_ours() -> None:
    page = (DOCS / "howto" / "troubleshooting.md").read_text()
    messages = re.findall(r"^### `(.+)`$", page, re.MULTILINE)
    assert len(messages) >= 20
    code = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    said = re.sub(r'"\s*\n\s*f?"', "", code)  # strings over several lines
    for message in messages:
        for part in filter(None, (part.strip(" ()") for part in message.split("…"))):
            assert part in said, f"{message}: nobody says {part!r}"


def test_blocks_of_output_are_those_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for page in ("start/demo.md", "ko/start.md"):
        block = re.search(r"```\n(It helps: .*?)```", (DOCS / page).read_text(), re.DOTALL)
        assert block is not None
        assert block[1] in readme, page


def test_every_table_of_measurements_has_its_command() -> None:
    """Beside it, or above it under a heading that includes its own."""
    command = re.compile(r"benchmarks/\w+\.py|recipes/|selfsup \w+|selfsup\.\w+\(|`--\w|the same command")
    measured = 0
    for path in DOCS.glob("*.md"):
        above: dict[int, str] = {}
        parts = re.split(r"^(#+) .*$", path.read_text(), flags=re.MULTILINE)
        for level, text in zip(map(len, parts[1::2]), parts[2::2], strict=True):
            above = {outer: told for outer, told in above.items() if outer < level} | {level: text}
            if re.search(r"^\|.*\d ± ?\d", text, re.MULTILINE):
                measured += 1
                assert any(command.search(told) for told in above.values()), f"{path.name}: {text[:200]}"
    assert measured > 10


def test_the_scripts_behind_the_numbers_are_there_and_take_these_options() -> None:
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]:
        text = re.sub(r" *\\\n +", " ", path.read_text())
        for script, options, commit in re.findall(
            r"python ((?:benchmarks|recipes|examples|tools|docs)/\w+\.py)([^`\n]*)`?(.* at commit `[\da-f]{7})?", text
        ):
            if not commit:  # an earlier version has its own options
                code = (ROOT / script).read_text()
                shared = (ROOT / "benchmarks" / f"{name}.py" for name in re.findall(r"^from (\w+) import", code, re.M))
                code += "".join(path.read_text() for path in shared if path.exists())
                unknown = [name for name in re.findall(r" (--[a-z][\w-]*)", options) if f'"{name}"' not in code]
                assert not unknown, f"{path.name}: {script} has no {unknown}"


def test_the_encoder_of_the_how_to_page_learns(tmp_path: Path) -> None:
    code = re.search(r"```python\n(.*?)\nrun = ", (DOCS / "howto" / "own-encoder.md").read_text(), re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    exec(code[1], names)
    options: dict[str, Any] = {"steps": 2, "batch_size": 8, "out": tmp_path / "run", "quiet": True}
    assert names["selfsup"].pretrain("digits", task="rotation", encoder=names["Small"](1), **options).done


def test_the_scripts_for_clusters_parse_and_so_do_their_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (DOCS / "scale.md").read_text()
    scripts = re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    files = [list(yaml.safe_load_all(t)) for t in re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)]
    (service, job), (task,) = files
    pod = job["spec"]["template"]["spec"]
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 2
    assert service["metadata"]["name"] == pod["subdomain"]
    assert service["spec"]["selector"]["job-name"] == job["metadata"]["name"]
    assert pod["containers"][0]["volumeMounts"][0]["name"] == pod["volumes"][0]["name"]
    assert task["num_nodes"] == 2
    scripts += [*pod["containers"][0]["args"], task["run"]]
    understand = tyro.cli

    def parse(*given: Any, **options: Any) -> None:
        raise Parsed(understand(*given, **options))

    monkeypatch.setattr(tyro, "cli", parse)
    for script in scripts:
        assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
        found = re.findall(r"selfsup (pretrain .*?)$", script.replace("\\\n", " "), re.MULTILINE)
        assert len(found) == 1, script
        with pytest.raises(Parsed):
            cli._run(shlex.split(found[0]))


def commands() -> Iterator[str]:
    """Return every command of the fenced blocks of the README and the site, each once."""
    found: dict[str, None] = {}
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]:
        for block in re.findall(r"^```\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL):
            block = re.sub(r" *\\\n +", " ", block)  # a line that goes on
            found |= dict.fromkeys(
                re.findall(r"(?:^|^\$ |^srun -n \d+ |^torchrun .* -m |&& )selfsup (.*?)(?= &&|$)", block, re.MULTILINE)
            )
    return iter(found)


def test_every_command_of_the_documentation_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of commands with the same options one is parsed, which costs a hundredth of a second each."""
    understand = tyro.cli

    def parse(*given: Any, **options: Any) -> None:
        raise Parsed(understand(*given, **options))

    monkeypatch.setattr(tyro, "cli", parse)
    refused, seen = {}, set()
    for command in commands():
        words = shlex.split(re.sub(r"\s{2,}(?!-)\S.*$", "", command), comments=True)
        words = [re.sub(r"(mine|mirror):(Task|Mirror)", "rotation", word) for word in words]
        if "--task" in words:
            assert words[words.index("--task") + 1] in TASKS, command
        kind = (words[0], *sorted(word for word in words if word.startswith("-")))
        if kind in seen:
            continue
        seen.add(kind)
        try:
            cli._run(cli._opening(words)[0])
        except Parsed:
            pass
        except UserError as error:
            refused[command] = str(error)
    assert not refused
