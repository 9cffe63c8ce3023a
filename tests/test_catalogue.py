"""`selfsup tasks`: the survey's sections, and what a user needs to choose a task."""

from __future__ import annotations

import pytest

import selfsup
from selfsup.commands.tasks import SECTIONS
from selfsup.tasks import TASKS


def test_tasks_are_listed_under_the_sections_of_the_survey_in_its_order() -> None:
    entries = selfsup.list_tasks()
    sections = list(dict.fromkeys(entry.section for entry in entries))
    assert sections == [section for section in SECTIONS if section in sections]
    assert {entry.name for entry in entries} == set(TASKS)
    lines = str(entries).splitlines()
    assert sum("images: patches" in line for line in lines) == 1  # said once, not in every row
    assert not any("(Gidaris" in line for line in lines)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_says_when_to_use_it_and_how(name: str) -> None:
    entry = selfsup.list_tasks(name)
    assert isinstance(entry.facts, dict)
    assert {"when", "encoder", "batch"} <= entry.facts.keys()
    assert ("published" in entry.facts) == ("Published: " in entry.text)
    assert ("deviations" in entry.facts) == ("Deviations: " in entry.text)
    shown = str(entry)
    assert "Published: " not in shown  # a row of its own
    for fact in entry.facts:
        assert any(line.startswith(f"{fact} ") for line in shown.splitlines())


def test_the_facts_of_rotation() -> None:
    facts = selfsup.list_tasks("rotation").facts
    assert facts["published"] == "CIFAR-10, NIN, conv2 features and a conv block, 91.16%."
    assert facts["deviations"].startswith("the head is an MLP")
    assert facts["deviations"].endswith("in three steps.")
    assert facts["encoder"] == "resnet18; small: convnet"
