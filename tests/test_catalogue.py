"""`selfsup tasks`: the survey's sections, what a user needs to choose a task, and its options."""

from __future__ import annotations

import inspect
import json

import pytest

import selfsup
from selfsup.base.options import Range, read_args, read_options
from selfsup.data.kinds import KINDS, spec_options
from selfsup.tasks import TASKS, find_task
from selfsup.tasks.catalogue import SECTIONS
from selfsup.tasks.options import options


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
    assert ("published" in entry.facts) == ("Published:" in entry.text)
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


@pytest.mark.parametrize("name", TASKS)
def test_every_option_of_a_task_has_a_sentence_and_every_number_a_range_with_its_default(name: str) -> None:
    task = find_task(name)
    found = options(task)
    assert found.keys() == read_args(task.__doc__ or "").keys(), "Args: names the options and nothing else"
    for key, option in found.items():
        assert option.help.endswith("."), key
        annotation = task.hyperparameters()[key].annotation
        if {int, float} & {annotation, *getattr(annotation, "__args__", ())}:
            assert option.range is not None, key
        if isinstance(option.default, int | float) and not isinstance(option.default, bool):
            assert option.range is not None, key
            assert option.range.holds(option.default), key


@pytest.mark.parametrize("kind", [*KINDS, "any"])
def test_every_option_of_a_kind_of_data_has_a_sentence(kind: str) -> None:
    assert all(option.help.endswith(".") for option in spec_options(kind).values())


def test_an_option_of_two_kinds_of_data_says_what_it_means_for_each() -> None:
    said = spec_options("any")["size"].help
    assert "For image data: Pixels per side" in said
    assert "For text data: Tokens of a sample" in said


def test_options_are_shown_with_default_range_and_sentence() -> None:
    entry = selfsup.list_tasks("simclr")
    shown, said = str(entry), json.loads(json.dumps(entry.as_json()))["options"]["temperature"]
    assert "Args:" not in shown
    assert "Args:" not in entry.text
    assert said.keys() == {"default", "range", "help"}
    assert said["range"] in shown
    assert said["help"].split()[0] in shown


def documented(one, *, ratio: float = 0.5, steps: int = 3, name: str = "x", wide: bool = False):
    """Do something.

    Args:
        one: Not an option.
        ratio: Fraction of patches,
            in (0, 1/2].
        steps: Steps (2, in [1, 3], is usual), in [1, inf).
        name: What it is called.

    Raises:
        wide: Not an option either.
    """


def test_a_range_is_read_off_the_end_of_a_sentence() -> None:
    parameters = {k: p for k, p in inspect.signature(documented).parameters.items() if p.kind is p.KEYWORD_ONLY}
    found = read_options(parameters, documented.__doc__ or "")
    assert found["ratio"] == (0.5, "Fraction of patches.", Range(0, 0.5, "(0, 1/2]"))
    assert found["ratio"].sentence == "Fraction of patches, in (0, 1/2]."
    assert found["steps"].help == "Steps (2, in [1, 3], is usual)."
    assert (found["name"].range, found["wide"].help) == (None, "")
    interval = found["ratio"].range
    assert interval is not None
    assert [interval.holds(value) for value in (0, 1e-9, 0.5, 0.6)] == [False, True, True, False]
