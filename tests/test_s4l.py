"""S4L: which labels it sees, how companions are drawn, and its place beside training from scratch."""

import copy
import csv
import json
import math
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import selfsup
from selfsup.cli import main
from selfsup.data.image import Arrays
from selfsup.data.open import open_data
from selfsup.encoders import build_encoder
from selfsup.errors import UserError
from selfsup.source import Labels
from selfsup.spec import ImageSpec
from selfsup.task import Loss, Panel, Task
from selfsup.tasks import TASKS, find_task
from selfsup.tasks.image.rotation import Rotation, all_rotations
from selfsup.tasks.resolve import resolve_task
from selfsup.tasks.semi.s4l import S4L
from selfsup.train.optim import build_optimizer
from selfsup.train.signals import Interrupted
from selfsup.views.image import Crop, ImageViews
from selfsup.views.image.labelled import shifted
from selfsup.views.loader import batches
from support.sources import images
from support.tasks import OPTIONS, SPEC


@pytest.fixture
def digits() -> Arrays:
    """Return the digits, of which every tenth has a label."""
    source = open_data("digits")
    assert isinstance(source, Arrays)
    assert source.labels is not None
    ids = np.where(np.arange(len(source)) % 10 == 0, source.labels.ids, -1)
    few = copy.copy(source)
    few.labels = Labels(ids, source.labels.classes)
    return few


def make(source: Arrays, **given) -> S4L:
    torch.manual_seed(0)
    task = S4L(build_encoder("convnet", source.spec()), num_classes=10, **given)
    return task.eval()  # BatchNorm: the same function however the images are grouped


def batch_of(task: S4L, source: Arrays, size: int = 32, **given):
    views = task.views(source.spec())
    place = {"batch_size": size, "seed": 0, "start": 0, "steps": 1, "workers": 0, **given}
    return views.finish(next(iter(batches(source, views, **place))).batch)


def test_samples_without_a_label_are_kept_by_s4l_alone(digits: Arrays) -> None:
    assert len(resolve_task("s4l", digits, {})[3]) == len(digits)
    assert len(resolve_task("supervised", digits, {})[3]) == math.ceil(len(digits) / 10)
    digits.labels = Labels(np.full(len(digits), -1), digits.labels.classes)
    with pytest.raises(UserError, match="s4l needs labels"):
        resolve_task("s4l", digits, {})


def test_companions_are_labelled_images_with_their_own_labels(digits: Arrays) -> None:
    task = make(digits, pad=0, flip=0.0)
    views = task.views(digits.spec())
    batch = next(iter(batches(digits, views, batch_size=400, seed=0, start=0, steps=1, workers=0))).batch
    known = {digits.x[i].tobytes(): digits.labels.ids[i] for i in np.flatnonzero(digits.labels.ids >= 0)}
    pixels = batch["x_labelled"].permute(0, 2, 3, 1).contiguous().numpy()
    drawn = [known[image.tobytes()] for image in pixels]
    assert drawn == batch["y_labelled"].tolist()
    assert len({image.tobytes() for image in pixels}) > 0.8 * len(known), "all of them get their turn"
    assert (digits.labels.ids[batch["index"].numpy()] == -1).mean() > 0.8, "the pretext sees all samples"


def test_a_companion_depends_on_seed_epoch_and_sample_alone(digits: Arrays) -> None:
    task = make(digits)
    whole = batch_of(task, digits, 32)
    halves = [batch_of(task, digits, 32, rank=rank, world=2) for rank in range(2)]
    for key in ("x_labelled", "y_labelled"):
        assert torch.equal(whole[key], torch.stack([half[key] for half in halves], 1).flatten(0, 1)), key
    for other in ({"seed": 1}, {"start": len(digits) // 32, "steps": len(digits) // 32 + 1}):
        assert not torch.equal(whole["y_labelled"], batch_of(task, digits, 32, **other)["y_labelled"])


def test_one_label_drawn_many_times_is_shifted_differently(digits: Arrays) -> None:
    digits.labels = Labels(np.where(np.arange(len(digits)) < 2, np.arange(len(digits)), -1), digits.labels.classes)
    x = batch_of(make(digits, flip=0.0), digits, 64)["x_labelled"]
    assert len({image.numpy().tobytes() for image in x}) > 20


def test_shifted_moves_over_black_and_mirrors() -> None:
    x = torch.arange(1, 10, dtype=torch.uint8).view(1, 1, 3, 3).repeat(4, 1, 1, 1)
    middle, corner = 0.5, 0.99
    draws = np.array([[middle, middle, 0.9], [middle, middle, 0.1], [corner, middle, 0.9], [middle, corner, 0.9]])
    draws = np.pad(draws, ((0, 0), (0, 2)), constant_values=0.3)
    same, mirrored, up, left = shifted(x, draws, Crop(3, pad=1, flip=0.5))[:, 0]
    assert torch.equal(same, x[0, 0])
    assert torch.equal(mirrored, x[0, 0].flip(1))
    assert torch.equal(up, F.pad(x[0, 0, 1:], (0, 0, 0, 1)))
    assert torch.equal(left, F.pad(x[0, 0, :, 1:], (0, 1)))
    turned = shifted(x, draws, Crop(3, pad=1, flip=0.5, vertical_flip=0.5, quarter_turns=True))[:, 0]
    for one, before in zip(turned, (same, mirrored, up, left), strict=True):
        assert torch.equal(one, before.flip(0).rot90(1))


def test_the_loss_is_the_sum_of_both_and_classifies_labelled_images_in_all_rotations(digits: Arrays) -> None:
    task = make(digits, pretext_weight=0.3)
    batch = batch_of(task, digits)
    loss = task.loss(batch)
    labels = [
        F.cross_entropy(task.head(task.encoder(batch["x_labelled"].rot90(k, (2, 3)))), batch["y_labelled"])
        for k in range(4)
    ]
    rotated, rotation = all_rotations(batch["x"])
    pretext = F.cross_entropy(task.pretext.head(task.encoder(rotated)), rotation)
    torch.testing.assert_close(loss.value, torch.stack(labels).mean() + 0.3 * pretext)
    torch.testing.assert_close(loss.metrics["pretext_loss"], pretext)
    assert loss.chance == pytest.approx(math.log(10) + 0.3 * math.log(4))
    torch.testing.assert_close(make(digits, rotate_labelled=False).loss(batch).metrics["label_loss"], labels[0])


class Bright(Task):
    """Predict the mean brightness; nothing to guess by. Batch: `z` (B, C, H, W) float."""

    def __init__(self, encoder, *, width: int = 4):
        super().__init__(encoder)
        self.steps, self.seen = 0, -1.0
        self.head = torch.nn.Sequential(torch.nn.Linear(encoder.dim, width), torch.nn.Linear(width, 1))

    def views(self, spec):
        return ImageViews(spec, {"z": Crop(spec.size)})

    def loss(self, batch):
        self.seen = self.progress
        return Loss(F.mse_loss(self.head(self.encoder(batch["z"]))[:, 0], batch["z"].mean((1, 2, 3))))

    def after_step(self):
        self.steps += 1

    def panels(self, batch, guess=False):
        return [[Panel(z, f"{z.mean():.2f}")] for z in batch["z"]]


def test_any_other_pretext(digits: Arrays, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "bright", f"{__name__}:Bright")
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    task = make(digits, pretext="bright", options={"width": 7}, pretext_weight=2.0)
    batch = batch_of(task, digits)
    assert set(batch) == {"index", "z", "x_labelled", "y_labelled"}
    assert task.pretext.head[0].out_features == 7
    assert task.pretext.encoder is task.encoder
    task.progress = 0.25
    loss = task.loss(batch)
    torch.testing.assert_close(loss.value, loss.metrics["label_loss"] + 2 * loss.metrics["pretext_loss"])
    assert loss.chance is None
    task.after_step()
    assert (task.pretext.seen, task.pretext.steps) == (0.25, 1)
    assert all(len(row) == 2 for row in task.panels(batch))


REFUSED = {  # and a part of the reason
    **dict.fromkeys(("bert", "declutr", "next_word", "simcse", "s4l", "supervised"), "does not learn from unlabelled"),
    **{
        name: "does not learn from unlabelled"
        for name in TASKS
        if find_task(name).kind in ("video", "audio", "trajectory")
    },
    **{name: f"{name} is several tasks itself" for name in ("combined", "metadata")},
}


@pytest.mark.parametrize("name", TASKS)
def test_every_pretext_shares_its_encoder_with_the_classifier_or_is_refused(name: str) -> None:
    source, options = images(), OPTIONS.get(name, {})
    if name in REFUSED:
        with pytest.raises(UserError, match=REFUSED[name]):
            resolve_task("s4l", source, {"pretext": name})
        return
    _, kind, values, _ = resolve_task("s4l", source, {"pretext": name, "options": options})
    alone = resolve_task(name, source, options)[2]
    torch.manual_seed(0)
    task = kind(build_encoder(find_task(name).small_encoder, SPEC), **values)
    assert all(alone[key] == value for key, value in (values["options"] or {}).items())
    assert task.samples(source) is source
    batch = task.views(SPEC).finish(
        next(iter(batches(source, task.views(SPEC), batch_size=16, seed=0, start=0, steps=1, workers=0))).batch
    )
    shared = [p for p in task.encoder.parameters() if p.requires_grad]
    for own in (task.pretext.loss(batch).value, task.head(task.encoder(batch["x_labelled"])).square().sum()):
        gradients = torch.autograd.grad(own, shared, allow_unused=True)
        reached = sum(g is not None and bool((g != 0).any()) for g in gradients)
        assert reached > len(shared) / 2, "both losses train the encoder that is kept"
    loss = task.loss(batch)
    task.after_step()
    assert loss.value.isfinite()
    assert task.representation() is task.encoder
    assert len(task.eval().panels(batch, guess=True)) == 16


@pytest.mark.parametrize("name", [name for name in TASKS if find_task(name).kind == "image"])
def test_every_task_is_combined_with_another_or_refused(name: str) -> None:
    source, other = images(), "denoising" if name == "rotation" else "rotation"
    given = {"tasks": f"{other},{name}", "options": {f"{name}.{k}": v for k, v in OPTIONS.get(name, {}).items()}}
    torch.manual_seed(0)
    encoder = build_encoder(find_task(name).small_encoder, SPEC)
    if name in REFUSED or name == "split_brain":
        with pytest.raises(UserError, match=REFUSED.get(name, "split_brain changes its encoder")):
            find_task("combined")(encoder, **resolve_task("combined", source, given)[2])
        return
    task = find_task("combined")(encoder, **resolve_task("combined", source, given)[2])
    views = task.views(SPEC)
    batch = views.finish(next(iter(batches(source, views, batch_size=16, seed=0, start=0, steps=1, workers=0))).batch)
    loss = task.loss(batch)
    parts = [loss.metrics[f"{part}_loss"] for part in (other, name)]
    torch.testing.assert_close(loss.value.detach(), torch.stack(parts).sum())
    weights = [p for p in encoder.parameters() if p.requires_grad]
    assert sum(g is not None for g in torch.autograd.grad(loss.value, weights, allow_unused=True)) > len(weights) / 2
    task.after_step()


def test_parts_set_the_learning_rates_of_their_own_heads_at_the_progress_of_the_whole() -> None:
    torch.manual_seed(0)
    encoder = build_encoder("convnet", SPEC)
    options = {"swav.queue_size": 0, "swav.freeze_prototypes": 0.5}
    combined = find_task("combined")(encoder, tasks="simsiam,swav", options=options)
    semi = S4L(build_encoder("convnet", SPEC), num_classes=4, pretext="simsiam")
    for task, wanted in (
        (combined, {"encoder": 0.1, "parts.simsiam.predictor": 1.0, "parts.swav.projector": 0.1}),
        (semi, {"encoder": 0.1, "head": 0.1, "pretext.projector": 0.1, "pretext.predictor": 1.0}),
    ):
        for progress, resting in ((0.4, 0.0), (0.6, 0.1)):
            task.progress = progress
            groups = build_optimizer(task, "sgd", 1.0, 0.0).param_groups
            rates = {group["child"]: task.lr_of(group["child"], 0.1, 1.0) for group in groups}
            assert rates.items() >= wanted.items()
            assert rates.get("parts.swav.prototypes", resting) == resting


def test_defaults_for_the_training_of_a_part_are_not_used_and_that_is_said(digits: Arrays, capsys) -> None:
    torch.manual_seed(0)
    task = S4L(build_encoder("vit-mini", ImageSpec.of(8, 1)), num_classes=10, pretext="mae")
    task.samples(digits)
    assert (
        "s4l trains as it does with any task, not with the defaults of mae (lr 0.002, betas " in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pretext": "rotatoin"}, "unknown task 'rotatoin'; did you mean 'rotation'"),
        ({"pretext": "os:system"}, "unknown task"),
        ({"pretext": "instance"}, "instance needs num_items"),
        ({"options": {"hiden": 3}}, "unknown option of rotation 'hiden'; did you mean 'hidden_dim'"),
    ],
)
def test_bad_pretexts_are_refused(digits: Arrays, given, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(digits, **given)


def test_a_folder_of_which_a_csv_file_labels_some(make_folder, tmp_path: Path, monkeypatch, capsys) -> None:
    folder = make_folder(count=20)
    with open(tmp_path / "few.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [["path", "label"], ["cat/3.png", "cat"], ["dog/5.png", "dog"], ["dog/6.png", "dog"]]
        )
    (folder / "dog" / "6.png").write_bytes(b"no image")
    words = (
        f"pretrain {folder} --task s4l --labels {tmp_path}/few.csv --encoder convnet --steps 9 --batch-size 16 --quiet"
    )
    words += " --pad 2 --options hidden_dim 32"
    assert main([*words.split(), "--out", str(tmp_path / "whole")]) == 0
    whole = selfsup.Run(tmp_path / "whole")
    assert whole.recipe["data"]["samples"] == 40
    assert whole.recipe["task"]["hyperparameters"]["options"] == {"hidden_dim": 32}
    skipped = [json.loads(line) for line in (tmp_path / "whole" / "skipped.jsonl").read_text().splitlines()]
    assert skipped == [{"path": "dog/6.png", "reason": "not an image"}]

    with monkeypatch.context() as patch:
        steps = iter(range(1, 100))
        stop = lambda task: os.kill(os.getpid(), signal.SIGTERM) if next(steps) == 4 else None  # noqa: E731
        patch.setattr(Rotation, "after_step", stop)
        with pytest.raises(Interrupted):
            _pretrain_again(words, tmp_path / "stopped")
    _pretrain_again(words, tmp_path / "stopped")
    files = [(tmp_path / name / "encoder.safetensors").read_bytes() for name in ("whole", "stopped")]
    assert files[0] == files[1], "a stopped and resumed run is bit-identical"

    with open(tmp_path / "few.csv", "a", newline="") as file:
        csv.writer(file).writerow(["cat/4.png", "cat"])
    with pytest.raises(UserError, match="holds another run"):
        _pretrain_again(words, tmp_path / "whole")


def _pretrain_again(words: str, out: Path) -> None:
    _, folder, _, task, _, labels, *_ = words.split()
    selfsup.pretrain(
        folder, task=task, labels=labels, encoder="convnet", steps=9, batch_size=16, pad=2, options={"hidden_dim": 32},
        out=out, quiet=True,
    )  # fmt: skip


def test_the_row_s4l_sees_the_drawn_labels_and_every_other_image_without(
    finished_run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:

    def record(task, source, views, plan, fabric, **options) -> None:
        ids = source.labels.ids
        saw = (type(task).__name__, len(source), int((ids >= 0).sum()), task.pretext.pad if task.pretext else None)
        with open(tmp_path / "seen", "a") as file:  # from several processes
            file.write(f"{saw}\n")

    monkeypatch.setattr("selfsup.evaluation.few_labels.fit", record)
    monkeypatch.setattr("selfsup.tasks.semi.supervised.Supervised.pretext", None, raising=False)
    source = open_data("digits")
    ids = np.where(np.arange(len(source)) < 1000, source.labels.ids, -1)
    source.labels = Labels(ids, source.labels.classes)
    result = selfsup.evaluate(finished_run, data=source, shots="2,all", draws=2, protocol="knn", semi=True, quiet=True)
    train = result.about["data"]["samples"]
    seen = (tmp_path / "seen").read_text().splitlines()
    alone = [saw for saw in seen if saw in [str(("Supervised", count, count, None)) for count in (20, train)]]
    assert sorted(alone) == sorted(str(("Supervised", count, count, None)) for count in (20, 20, train))
    assert [saw for saw in seen if "S4L" in saw] == [str(("S4L", train + 797, count, 4)) for count in (20, 20, train)]
    assert {score.shots for score in result.scores if score.representation == "s4l"} == {2, None}
    assert "s4l" in str(result)
