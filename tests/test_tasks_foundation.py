"""Tasks that start from what is known already: a sample's number, a teacher, a table of metadata."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import selfsup
from selfsup.comparison.candidates import find_candidates
from selfsup.data.columns import read_columns
from selfsup.data.image import Arrays
from selfsup.encoders import build_encoder
from selfsup.errors import UserError
from selfsup.reports.samples import free_labels
from selfsup.source import Source
from selfsup.spec import ImageSpec
from selfsup.task import Task
from selfsup.tasks import find_task
from selfsup.tasks.image import diet
from selfsup.tasks.image.distill_teacher import Teacher
from selfsup.tasks.image.distill_weights import load_teacher
from selfsup.tasks.image.metadata_heads import Heads
from selfsup.tasks.resolve import resolve_task
from selfsup.train.device import make_fabric
from selfsup.train.fit import fit
from selfsup.train.plan import Plan
from support.sources import images as toy_images
from support.sources import toy
from support.tasks import OPTIONS, REQUIRED, SPEC, first_batch, spec_of, teacher

GIVEN: dict[str, Any] = {"encoder": "convnet", "steps": 2, "batch_size": 8, "size": 16, "device": "cpu", "quiet": True}


@pytest.fixture(scope="module")
def images() -> Arrays:
    return toy_images()


def make(name: str, source: Source, **options: object) -> Task:
    torch.manual_seed(0)
    _, kind, values, _ = resolve_task(name, source, {**OPTIONS[name], **options})
    return kind(build_encoder(kind.encoder_for(source.kind, small=True), spec_of(source, kind)), **values)


# diet


@pytest.mark.parametrize("smoothing", [0.0, 0.8])
def test_diet_is_a_linear_classifier_of_samples_with_smoothed_labels(images: Arrays, smoothing: float) -> None:
    task = make("diet", images, smoothing=smoothing).eval()
    batch, head = first_batch(task, images), task.head.weight
    with torch.no_grad():
        head.mul_(30)
    logits = task.encoder(batch["x"]) @ head.T
    wanted, found = F.cross_entropy(logits, batch["index"], label_smoothing=smoothing), task.loss(batch)
    torch.testing.assert_close(found.value, wanted)
    torch.testing.assert_close(found.metrics["index_loss"], F.cross_entropy(logits, batch["index"]).detach())
    (gradient,) = torch.autograd.grad(found.value, head, retain_graph=True)
    torch.testing.assert_close(gradient, torch.autograd.grad(wanted, head)[0])
    assert found.chance == math.log(64), "a guess that ignores the input has it whatever the smoothing"


@pytest.mark.parametrize("kind", ["text", "video", "audio", "trajectory"])
def test_diet_learns_from_every_kind_of_data(kind: str) -> None:
    source = toy(kind)
    task = make("diet", source)
    spec, plan = spec_of(source, type(task)), Plan(2, 16, lr=1e-3)
    before = task.head.weight.detach().clone()
    assert task.samples(source) is source
    fit(task, source, task.views(spec), plan, make_fabric("cpu", "float32"), workers=0, quiet=True)
    assert (task.head.weight != before).any(1).all(), "smoothed labels are about every sample"
    rows = task.eval().panels(first_batch(task, source, 4), guess=True)
    assert [row[0].caption.startswith("sample ") for row in rows] == [True] * 4


def test_a_large_head_of_diet_says_what_it_costs_and_a_huge_one_is_refused(
    images: Arrays, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make("diet", images).samples(images)
    assert "diet" not in capsys.readouterr().err
    monkeypatch.setattr(diet, "LARGE", 64)
    make("diet", images).samples(images)
    assert "one row per sample, need 0.0 GiB to be trained" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"weights for each of 10,000,000,000 samples, which need [\d,]+ GiB"):
        find_task("diet")(build_encoder("convnet", SPEC), num_items=10**10)


# distill


def test_the_teacher_is_frozen_and_in_no_state(images: Arrays) -> None:
    task = make("distill", images)
    batch = first_batch(task, images)
    frozen = task.teacher()
    before = frozen.digest()
    assert not any("teacher" in key for key in task.state_dict())
    task.train().loss(batch).value.backward()
    assert not frozen.encoder.training
    assert frozen.digest() == before
    assert not any(p.requires_grad for p in frozen.encoder.parameters())


def test_a_student_needs_the_same_teacher_to_learn_and_none_to_be_loaded(images: Arrays, tmp_path: Path) -> None:
    path = Path(teacher("mine"))
    asked = {**GIVEN, "task": "distill", "teacher": str(path), "out": tmp_path / "run"}
    selfsup.pretrain(images, **asked, until=1)
    teacher("mine", seed=2)
    with pytest.raises(UserError, match="teacher_digest"):
        selfsup.pretrain(images, **asked)
    teacher("mine")
    run = selfsup.pretrain(images, **asked)
    path.unlink()
    assert "cannot be drawn for these data: an untrained" in str(free_labels(run, images, 0))
    assert type(run.load()).__name__ == "ConvNet"
    exported = selfsup.export(run, format="safetensors", out=tmp_path / "student.safetensors").path
    for trained in (run.folder, exported):
        assert load_teacher(str(trained), False, None, 0).dim == run.load().dim, "it may teach others"


class Seen(torch.nn.Module):
    """An encoder that returns the mean of each channel of what it sees."""

    def __init__(self, spec: ImageSpec) -> None:
        super().__init__()
        self.spec, self.dim, self.one = spec, spec.channels, torch.nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[1:] == (self.spec.channels, self.spec.size, self.spec.size)
        return self.one * x.mean((2, 3))


@pytest.mark.parametrize(("channels", "of_teacher"), [(3, 3), (1, 3), (3, 1)])
def test_the_teacher_sees_images_in_its_own_size_and_normalization(channels: int, of_teacher: int) -> None:
    student = ImageSpec(32, channels, (0.4, 0.3, 0.2)[:channels], (0.2, 0.3, 0.4)[:channels])
    own = ImageSpec(48, of_teacher, (0.1, 0.5, 0.9)[:of_teacher], (0.5, 0.6, 0.7)[:of_teacher])
    flat = torch.rand(4, channels, 1, 1).expand(-1, -1, 32, 32)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (student.mean, student.std))
    z, places = Teacher(Seen(own), "seen", 0)((flat - mean) / std, student, True)
    colours = flat[:, :, 0, 0]
    if channels > of_teacher:
        colours = (colours * torch.tensor([0.299, 0.587, 0.114])).sum(1, keepdim=True)
    wanted = (colours - torch.tensor(own.mean)) / torch.tensor(own.std)
    torch.testing.assert_close(z, wanted, rtol=1e-4, atol=1e-5)
    assert places is None


def test_fixed_views_are_read_by_the_teacher_once(
    images: Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFSUP_CACHE", str(tmp_path))
    read, call = [], Teacher.__call__

    def counted(self: Teacher, x: torch.Tensor, spec: Any, places: bool) -> Any:
        read.append(len(x))
        return call(self, x, spec, places)

    monkeypatch.setattr(Teacher, "__call__", counted)
    tasks = [make("distill", images, fixed_views=True).train() for _ in range(3)]
    stored = [first_batch(task, images) for task in tasks[:2] if task.samples(images)]
    assert sum(read) == 64 + 1, "each image, and one for the shapes"
    assert all(torch.equal(stored[0][key], stored[1][key]) for key in ("x", "target", "places"))
    losses = [task.loss(batch).value for task, batch in zip(tasks, stored, strict=False)]
    assert sum(read) == 64 + 1
    losses.append(tasks[2].loss({"x": stored[0]["x"]}).value)
    assert losses[0] == losses[1]
    torch.testing.assert_close(losses[0], losses[2], rtol=1e-3, atol=0.0)
    make("distill", images, fixed_views=True, teacher=teacher("other", seed=2)).samples(images)
    make("distill", images, fixed_views=True).samples(images.take(np.arange(8)))
    assert sum(read) == 65 + 16 + 65 + 9, "other weights and other data are other features"


def test_the_relation_is_the_cross_entropy_of_similarities_to_past_features(images: Arrays) -> None:
    task = make("distill", images, queue_size=24, patch_weight=0.0).train()
    batch, rows = first_batch(task, images), task.queue.rows.clone()
    found = task.loss(batch)
    s, t = (F.normalize(x, dim=1) for x in task.heads(task.encoder(batch["x"]), task.targets(batch)[0]))
    wanted = []
    for one, other in zip(s, t, strict=True):
        among = torch.cat([other[None], rows])
        target, log = (among @ other / 0.01).softmax(0), (among @ one / 0.2).log_softmax(0)
        wanted.append(-(target * log).sum())
    torch.testing.assert_close(found.metrics["relation"], torch.stack(wanted).mean().detach(), rtol=1e-4, atol=1e-4)
    assert found.chance == pytest.approx(1 + math.log(25))
    assert torch.equal(task.queue.rows, rows), "the queue changes after the step"
    task.after_step()
    torch.testing.assert_close(task.queue.rows[:16], t.detach())


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_weights_of_a_model_of_timm_are_read_from_a_file(name: str, images: Arrays, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    save_file(model.state_dict(), tmp_path / "own.safetensors")
    given = {"teacher": name, "teacher_weights": str(tmp_path / "own.safetensors")}
    task = make("distill", images, **given)
    batch = first_batch(task, images, 4)
    found, places = task.targets(batch)
    size = model.pretrained_cfg["input_size"][1]
    pixels = batch["x"] * torch.tensor(SPEC.std).view(-1, 1, 1) + torch.tensor(SPEC.mean).view(-1, 1, 1)
    own = [torch.tensor(model.pretrained_cfg[key]).view(-1, 1, 1) for key in ("mean", "std")]
    larger = F.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
    wanted = model.forward_head(model.forward_features((larger - own[0]) / own[1]), pre_logits=True)
    torch.testing.assert_close(found, wanted.detach(), rtol=1e-3, atol=1e-4)
    assert places is not None
    assert places.shape[1] == task.heads.patch_projector.out_features
    other = {"test_resnet": "test_vit", "test_vit": "test_resnet"}[name]
    with pytest.raises(UserError, match=f"these weights do not fit {other}"):
        make("distill", images, **given | {"teacher": other})
    if name == "test_vit":
        with pytest.raises(UserError, match="cannot take 3 pixels: give another --teacher-size"):
            make("distill", images, **given, teacher_size=3)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"teacher": "hf-hub:lab/cells", "teacher_pretrained": True}, "here give timm's name and a file of it"),
        ({"teacher": "resnet18"}, "an untrained resnet18 has nothing to teach: add --teacher-pretrained"),
        ({"teacher": "resnet1"}, "an untrained resnet1 has nothing to teach"),
        ({"teacher": "resnet1", "teacher_pretrained": True}, "unknown encoder 'resnet1'; did you mean"),
        ({"teacher": "convnet", "teacher_pretrained": True}, "convnet has no pretrained weights"),
        ({"teacher": "convnet", "teacher_weights": teacher()}, "is for models of timm, and convnet is not one"),
        ({"teacher": teacher(), "teacher_weights": teacher()}, "brings its weights: leave"),
        ({"teacher": str(Path(__file__).parent)}, "cannot read"),
        ({"teacher": __file__}, "cannot read .* give another --teacher"),
        ({"global_weight": 0.0, "patch_weight": 0.0}, "has nothing to match"),
        ({"queue_size": 100}, "--queue-size 100 is more than there are samples"),
    ],
)
def test_what_cannot_teach_is_one_line(given: dict[str, Any], told: str, images: Arrays) -> None:
    with pytest.raises(UserError, match=told) as error:
        make("distill", images, **given)
    assert "\n" not in str(error.value)


def test_a_teacher_of_other_images_is_refused() -> None:
    five = Arrays(np.zeros((16, 16, 16, 5), np.uint8))
    _, kind, values, _ = resolve_task("distill", five, REQUIRED["distill"])
    with pytest.raises(UserError, match="sees 3 channels, not 5: give --channels 3"):
        kind(build_encoder("convnet", five.spec()), **values).samples(five)


# metadata


def write(path: Path, lines: list[str]) -> str:
    path.write_text("\n".join(lines))
    return str(path)


def test_columns_are_names_or_numbers_of_those_samples_that_have_a_row(images: Arrays, tmp_path: Path) -> None:
    rows = [
        f"{i},{i % 3},{'nan' if i == 4 else 'inf' if i == 5 else i / 4},{'' if i == 6 else 'ab'[i % 2]}"
        for i in range(32)
    ]
    path = write(tmp_path / "t.csv", ["path,site,age,sex", *rows, *rows[:2], "99,1,2,a"])
    (site, age, sex), notes = read_columns(images, path, ["site", "age", "sex"])
    assert site.names == ("0", "1", "2"), "few whole numbers are names"
    assert np.isnan(site.values[32:]).all()
    assert site.values[:32].tolist() == [i % 3 for i in range(32)]
    assert age.names == ()
    assert np.flatnonzero(np.isnan(age.values[:32])).tolist() == [4, 5]
    assert np.nanmean(age.scaled()) == pytest.approx(0)
    assert np.nanstd(age.scaled()) == pytest.approx(1)
    assert np.flatnonzero(np.isnan(sex.values[:32])).tolist() == [6]
    told = "\n".join(notes)
    assert "1 paths are of no sample and left out, for example '99'" in told
    assert "site: 3 names, known for 32 of 64 samples" in told
    assert "age: numbers from 0 to 7.75, known for 30 of 64 samples" in told
    (numbers,), _ = read_columns(images, path, ["site:numbers"])
    assert numbers.names == ()
    semicolons = write(tmp_path / "de.csv", ["path;age", *(f"{i};{i / 4:.2f}".replace(".", ",") for i in range(32))])
    (age,), notes = read_columns(images, semicolons, ["age"])
    assert age.values[:32].tolist() == [i / 4 for i in range(32)]
    assert "age: numbers from 0 to 7.75 (written with decimal commas), known for 32 of 64" in notes[-1]
    (few,), _ = read_columns(images.take(np.arange(3)), path, ["site"], {"site": ["2", "1", "5"]})
    np.testing.assert_array_equal(few.values, [math.nan, 1, 0], "the names have the places that they had")


@pytest.mark.parametrize(
    ("lines", "wanted", "told"),
    [
        (["path,a", "0,x", "1,x"], ["a"], "the column 'a' of .* is the same for all samples"),
        (["path,a", "0,x", "1,y"], ["a"], "has another name for each sample"),
        (["path,a", "0,", "1,nan"], ["a"], "tells nothing of any sample"),
        (["path,a", "0,inf", "1,inf"], ["a"], "is the same for all samples"),
        (["path,a", "0,1.5", "1,2.5", "2,two"], ["a"], "holds numbers and 'two': write a:names or a:numbers"),
        (["path,scanner", "0,x", "1,y"], ["scaner"], "unknown column of .* did you mean 'scanner'"),
        (["path,a", "0,x", "0,y", "1,y"], ["a"], "two rows for '0' that differ"),
        (["path,a", "70,x", "80,y"], ["a"], "labels 2 paths that toy does not have"),
        (["place,a", "0,x", "1,y"], ["a"], "has no column of paths: call one of 'place', 'a' path"),
        (["path,a,b", "0,x,1", "1,y,1", "2,x,2"], ["a", "a:names"], "is named twice"),
    ],
)
def test_a_column_that_tells_nothing_is_one_line(
    lines: list[str], wanted: list[str], told: str, images: Arrays, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=told) as error:
        read_columns(images, write(tmp_path / "t.csv", lines), wanted)
    assert "\n" not in str(error.value)


def test_samples_that_are_not_known_do_not_count_and_suppressed_columns_push_the_encoder_away(
    images: Arrays, tmp_path: Path
) -> None:
    rows = [f"{i},{'ab'[i % 2]},{i / 4},{'xyz'[i % 3]}" for i in range(0, 64, 2)]
    rows += [f"{i},{'ab'[i // 2 % 2]},," for i in range(1, 64, 2)]
    table = write(tmp_path / "t.csv", ["path,shape,age,camera", *rows])
    columns, _ = read_columns(images, table, ["shape", "age", "camera"])
    torch.manual_seed(0)
    heads = Heads(8, {one.name: one.names for one in columns}, 2, 16).eval()
    heads.read(images, table, ["shape", "age", "camera"])
    z, index = torch.randn(6, 8, requires_grad=True), torch.tensor([0, 1, 2, 3, 4, 5])
    guesses = heads(z, 0.5)
    losses, chances, metrics = heads.losses(guesses, index)
    known = [0, 2, 4]
    ages = torch.tensor(columns[1].scaled()[known]).float()
    camera = torch.tensor(columns[2].values[known]).long()
    torch.testing.assert_close(losses[0], F.cross_entropy(guesses[0], torch.tensor(columns[0].values[:6]).long()))
    torch.testing.assert_close(losses[1], (guesses[1][known, 0] - ages).square().mean())
    torch.testing.assert_close(losses[2], F.cross_entropy(guesses[2][known], camera))
    assert chances == [math.log(2), 1.0, math.log(3)]
    assert metrics.keys() == {"shape_accuracy", "age_error", "camera_accuracy"}
    (pushed,) = torch.autograd.grad(losses[2], z)
    pulled, own = torch.autograd.grad(
        F.cross_entropy(heads.suppress[0](z)[known], camera), [z, heads.suppress[0][0].weight], retain_graph=True
    )
    torch.testing.assert_close(pushed, -0.5 * pulled)
    losses, *_ = heads.losses(heads(z, 0.5), index)
    torch.testing.assert_close(torch.autograd.grad(losses[2], heads.suppress[0][0].weight)[0], own)


def test_suppression_follows_the_schedule(images: Arrays) -> None:
    task, strengths = make("metadata", images), []
    batch = first_batch(task, images)
    task.heads.register_forward_pre_hook(lambda module, inputs: strengths.append(inputs[1]))
    for task.progress in (0.0, 0.1, 1.0):
        task.loss(batch)
    assert strengths == pytest.approx([0.0, 2 / (1 + math.exp(-1)) - 1, 1.0], abs=1e-3)


def test_a_table_that_changed_and_one_without_columns_are_refused(images: Arrays, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    write(path, ["path,a", *(f"{i},{'xy'[i % 2]}" for i in range(64))])
    asked = {**GIVEN, "task": "metadata", "table": str(path), "suppress": "a", "out": tmp_path / "run"}
    run = selfsup.pretrain(images, **asked, until=1)
    drawn = str(free_labels(run, images, 0))
    assert all(word in drawn for word in (">a x<", ">a y<")), "captions of the report"
    write(path, ["path,a", *(f"{i},{'yx'[i % 2]}" for i in range(64))])
    with pytest.raises(UserError, match="table_digest"):
        selfsup.pretrain(images, **asked)
    for more, told in (
        ({"suppress": ""}, "metadata needs --keep or --suppress"),
        ({"table": str(tmp_path / "no.csv")}, "no such table"),
        ({"pretext": "metadata"}, "metadata is several tasks itself"),
    ):
        with pytest.raises(UserError, match=told):
            selfsup.pretrain(images, **asked | more)


def test_compare_leaves_out_what_needs_more_than_data(images: Arrays) -> None:
    candidates, left_out = find_candidates("all", images)
    assert "diet" in candidates
    assert left_out["distill"] == "distill needs --teacher"
    assert left_out["metadata"] == "metadata needs --table"
