"""Families of views: which steps they change, how a user asks for them, and which tasks have a label to lose."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import selfsup
from selfsup.cli import main
from selfsup.data import make_spec
from selfsup.data.image import Arrays
from selfsup.encoders import build_encoder
from selfsup.errors import UserError
from selfsup.source import Labels
from selfsup.spec import ImageSpec
from selfsup.spec.image import FAMILIES
from selfsup.tasks import TASKS, find_task
from selfsup.tasks.resolve import resolve_task
from selfsup.views import plain_views, standard_views
from selfsup.views.image import PRESETS, ImageViews, patches, preset
from selfsup.views.image.family import in_family
from support.tasks import REQUIRED

CHANGES = {
    "natural": {},
    "overhead": {"flip": 0.5, "vertical_flip": 0.5, "quarter_turns": True},
    "document": {"flip": 0.0, "degrees": 3.0, "shear": 2.0, "translate": 0.02, "solarize": 0.0},
}
UPRIGHT = {"rotation", "combined", "s4l"}  # the latter two by default: with rotation as a part
OVERHEAD = replace(ImageSpec.of(32, 3), views="overhead")


@pytest.fixture
def images() -> Arrays:
    x = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3)).astype(np.uint8)
    return Arrays(x, Labels.of([f"class {i % 2}" for i in range(16)]))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", PRESETS)
def test_a_family_changes_exactly_what_it_says(name: str, family: str) -> None:
    groups = preset(name, 96)
    found = in_family(family, groups)
    assert found.keys() == groups.keys()
    for key, before in groups.items():
        wanted = dict(CHANGES[family])
        if family == "document":
            wanted["gray"] = min(before.gray, 0.1)
            wanted["jitter"] = before.jitter and (*before.jitter[:3], 0.0)
        assert found[key] == replace(before, **wanted)
    assert in_family(family, found) == found
    assert ImageViews(replace(ImageSpec.of(96, 3), views=family), groups).groups == found


@pytest.mark.parametrize("family", FAMILIES)
def test_patches_of_a_grid_stay(family: str) -> None:
    groups = {"cells": patches(16, 3, 4, scale=(0.3, 0.9))}
    assert in_family(family, groups) == groups


def test_evaluation_is_the_same_in_every_family(images: Arrays) -> None:
    for views in (plain_views, lambda spec: standard_views(spec).several(spec)[0]):
        natural, overhead = (
            views(spec).fetch(images, np.arange(4), 0, 0).batch["x"] for spec in (ImageSpec.of(32, 3), OVERHEAD)
        )
        assert torch.equal(natural, overhead)


def test_training_on_labels_has_the_family(images: Arrays) -> None:
    views = standard_views(OVERHEAD).labelled(OVERHEAD, 0, 0.5)
    x = [views.fetch(images, np.array([0]), 0, epoch).batch["x"][0].permute(1, 2, 0).numpy() for epoch in range(60)]
    wanted = [np.rot90(pixels, k) for pixels in (images.x[0], images.x[0][::-1]) for k in range(4)]
    assert {pixels.tobytes() for pixels in x} == {pixels.tobytes() for pixels in wanted}


@pytest.mark.parametrize("name", [name for name in TASKS if find_task(name).kind in ("image", "any")])
def test_tasks_learn_from_images_without_an_up_or_refuse_them(name: str, images: Arrays) -> None:
    _, task_class, options, source = resolve_task(name, images, REQUIRED.get(name, {}))
    task = task_class(build_encoder(task_class.small_encoder, OVERHEAD), **options)
    if name in UPRIGHT:
        with pytest.raises(UserError, match="rotation asks which way is up, and with --views overhead"):
            task.views(OVERHEAD)
        return
    source, views = task.samples(source), task.views(OVERHEAD)
    assert task.loss(views.finish(views.fetch(source, np.arange(8), 0, 0).batch)).value.isfinite()


def test_a_page_can_be_rotated_further_and_other_parts_combined() -> None:
    page = replace(ImageSpec.of(32, 3), views="document")
    rotation = find_task("rotation")(build_encoder("convnet", page))
    assert rotation.views(page).groups["x"].flip == 0
    combined = find_task("combined")(build_encoder("convnet", page), tasks="simclr,denoising")
    assert {crop.quarter_turns for crop in combined.views(OVERHEAD).made.groups.values()} == {True}


def test_labels_made_from_patches_do_not_depend_on_the_family(images: Arrays) -> None:
    for name in ("jigsaw", "relative_position"):
        task = find_task(name)(build_encoder("convnet", OVERHEAD))
        batches = [task.views(s).finish(task.views(s).fetch(images, np.arange(16), 0, 0).batch)
                   for s in (ImageSpec.of(32, 3), OVERHEAD)]  # fmt: skip
        made = task.puzzles if name == "jigsaw" else task.pairs
        (tiles, labels), (others, same) = (made(batch) for batch in batches)
        assert torch.equal(labels, same)
        assert not torch.equal(tiles, others)


# what a user gives, and where it is kept


def test_pretrain_keeps_it_in_the_recipe_and_resumes(tmp_path: Path) -> None:
    given = {"task": "simclr", "encoder": "convnet", "batch_size": 16, "quiet": True, "views": "overhead"}
    whole = selfsup.pretrain("digits", **given, steps=3, out=tmp_path / "whole")
    selfsup.pretrain("digits", **given, steps=3, until=2, out=tmp_path / "parts")
    parts = selfsup.pretrain("digits", **given, steps=3, out=tmp_path / "parts")
    assert whole.weights_digest() == parts.weights_digest()
    assert whole.recipe["spec"]["views"] == whole.spec.views == "overhead"
    with pytest.raises(UserError, match=r"spec.views: 'overhead' here, None requested"):
        selfsup.pretrain("digits", **{**given, "views": None}, steps=3, out=tmp_path / "whole")
    common = {"steps": 1, "init": whole.folder, "quiet": True, "batch_size": 16}
    again = selfsup.pretrain("digits", task="simclr", **common, out=tmp_path / "again")
    upright = selfsup.pretrain("digits", views="natural", **common, out=tmp_path / "upright")  # rotation
    assert again.spec.views == "overhead"
    assert upright.spec == replace(whole.spec, views="natural")
    with pytest.raises(UserError, match="--init brings its own size and channels and range: leave --size out"):
        selfsup.pretrain("digits", size=16, views="natural", **common, out=tmp_path / "other")


def test_natural_views_leave_no_trace_in_a_recipe(one_run: Path) -> None:
    assert "views" not in json.loads((one_run / "recipe.json").read_text())["spec"]
    assert selfsup.Run(one_run).spec.views == "natural"
    spec = make_spec(Arrays(np.zeros((2, 8, 8, 3), np.uint8)), views="document")
    assert ImageSpec.from_json(spec.to_json(), one_run) == spec
    assert "document views" in spec.describe()
    with pytest.raises(ValueError, match="impossible"):
        ImageSpec.from_json({**spec.to_json(), "views": ["overhead"]}, one_run)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            "pretrain digits --task simclr --views overhed",
            "unknown family of views 'overhed'; did you mean 'overhead'",
        ),
        ("pretrain digits --views overhead", "give another --task, such as simclr"),
        ("show --preset simclr digits --views dino", "known: document, natural, overhead"),
        ("show --preset simclr digits --flip 1", "unknown option of show '--flip'"),
        ("show --preset simclr rotation digits", "--preset takes data alone"),
        ("bench views digits --views page", "unknown family of views 'page'"),
    ],
)
def test_what_does_not_fit_is_one_line(words: str, told: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_show_draws_them(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for family in FAMILIES:
        assert main(["show", "--preset", "mae", "--views", family, "--size", "9", "digits", "-o", f"{family}.png"]) == 0
    assert len({(tmp_path / f"{family}.png").read_bytes() for family in FAMILIES}) == 3
    assert main(["show", "--views", "overhead", "digits", "-o", "alone.png"]) == 0
    assert main(["show", "--size", "8", "digits", "--preset", "simclr", "--views", "overhead", "-o", "both.png"]) == 0
    assert Path("alone.png").read_bytes() == Path("both.png").read_bytes()
    assert main(["show", "simclr", "digits", "--views", "overhead", "-o", "task.png"]) == 0
    assert Path("task.png").exists()
