"""Words that we no longer use: one meaning has one name, the one that a reader of the papers searches for."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PLACES = ("src", "tests", "docs", "benchmarks", "recipes", "examples", "tools", "README.md", "CONTRIBUTING.md")
EXCEPT = {Path(__file__).name}

GONE = {  # what is not written any more -> what is
    r"(?<![a-z])pictures?(?![a-z])": "image",
    r"\bperceptrons?\b": "MLP",
    r"\bslow (encoder|copy)\b": "EMA, momentum, target or teacher encoder",
    r"\bno run folder\b": "is not a run folder",
    r"\bgo(es)? on (where|with the same|to the same)\b": "resumes",
    r"\b(as|too) dear\b": "as expensive",
    r"\bcheaters?\b": "shortcut probe",
    r"\bcue readers?\b": "shortcut probe",
    r"\brungs?\b": "stage",
    r"\bpatiently\b": "with_timeout",
    r"\bmodalit(y|ies)\b": "kind of data",
    r"\bhide_words\b|\bWordHead\b": "MLM head",
    r"\b(is|are) no (file|folder|number|subclass|timm model|readable|whole|Parquet|torch)\b": "is not a …",
    r"\bwhat is kept\b": "the trained encoder",
    r"\bleast share\b": "minimum scale, minimum ratio",
}
OPTIONS = {
    "hidden",
    "dim",
    "least",
    "most",
    "masked",
    "layers",
    "prototypes",
    "queue",
    "width",
    "turns",
    "items",
    "scale",
}


def files() -> list[Path]:
    found = []
    for place in PLACES:
        path = ROOT / place
        found += [path] if path.is_file() else [p for p in path.rglob("*") if p.suffix in (".py", ".md")]
    return [path for path in found if path.name not in EXCEPT]


@pytest.mark.parametrize("pattern", GONE)
def test_a_word_that_we_no_longer_use_is_nowhere(pattern: str) -> None:
    found = []
    for path in files():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if re.search(pattern, line, re.IGNORECASE):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert not found, f"write {GONE[pattern]!r}:\n" + "\n".join(found[:20])


def test_no_option_of_a_task_has_a_name_that_meant_several_things() -> None:
    from selfsup.tasks import TASKS, find_task

    for name in TASKS:
        assert not find_task(name).hyperparameters().keys() & OPTIONS, name
