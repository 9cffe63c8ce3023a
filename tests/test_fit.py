"""The loop: schedules, failures, what is logged."""

import copy
import json
import math
import re
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric.plugins import Precision
from torch import Tensor
from torch.nn import functional as F

import selfsup
from selfsup.base.progress import Progress
from selfsup.data.image import Arrays
from selfsup.encoders import build_encoder
from selfsup.encoders.image.timm_model import TimmModel
from selfsup.errors import RunFailed, UserError
from selfsup.spec import ImageSpec
from selfsup.task import Loss, Task
from selfsup.tasks import find_task
from selfsup.tasks.image.rotation import Rotation, all_rotations
from selfsup.train.channels_last import channels_last
from selfsup.train.checkpoint import load_tensors, restore, save_tensors, training_state
from selfsup.train.device import make_fabric
from selfsup.train.fit import Plan, fit
from selfsup.train.optim import build_optimizer, warmup_cosine
from selfsup.train.precision import resolve_precision
from support.sources import noise


@pytest.fixture
def source() -> Arrays:
    return noise()


def test_schedule_is_a_function_of_progress() -> None:
    assert warmup_cosine(0.0, 0.1) == 0.0
    assert warmup_cosine(0.05, 0.1) == pytest.approx(0.5)
    assert warmup_cosine(0.1, 0.1) == pytest.approx(1.0)
    assert warmup_cosine(0.55, 0.1) == pytest.approx(0.5)
    assert warmup_cosine(1.0, 0.1) == pytest.approx(0.0)
    assert warmup_cosine(0.0, 0.0) == pytest.approx(1.0)
    rates = [Plan(steps=100, lr=1.0).lr_at(step) for step in range(100)]
    assert 0 < min(rates) < max(rates) <= 1.0


def test_vectors_get_no_weight_decay() -> None:
    encoder = build_encoder("convnet", ImageSpec.of(12, 1))
    for name in ("adamw", "sgd", "lars"):
        groups = build_optimizer(encoder, name, 0.1, 0.3).param_groups
        assert {(group["weight_decay"], min(p.ndim for p in group["params"]) > 1) for group in groups} == {
            (0.3, True),
            (0.0, False),
        }


def test_positions_and_tokens_get_no_weight_decay() -> None:
    encoder = TimmModel("vit_tiny_patch16_224", ImageSpec.of(32, 3), depth=1, reg_tokens=2)
    task = find_task("ibot")(encoder, num_prototypes=16, hidden_dim=16, out_dim=8)
    names = {id(parameter): name for name, parameter in task.named_parameters()}
    groups = build_optimizer(task, "adamw", 0.1, 0.3).param_groups
    spared = {
        names[id(one)] for group in groups if not group["weight_decay"] for one in group["params"] if one.ndim > 1
    }
    assert spared == {f"encoder.model.{name}" for name in ("pos_embed", "cls_token", "reg_token")}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_frozen_parts_do_not_fill_the_moments(source: Arrays, tmp_path: Path, optimizer: str) -> None:
    """DINO and SwAV freeze prototypes at first, and an encoder that begins trained waits for its heads."""

    class Frozen(Rotation):
        def lr_of(self, child: str, scheduled: float, peak: float) -> float:
            return 0.0 if child == "head" and self.progress < 0.3 else scheduled

    moments = []
    for steps in (1, 3):
        task = Frozen(build_encoder("convnet", ImageSpec.of(12, 1)))
        before = copy.deepcopy(list(task.head.parameters()))
        plan, folder = Plan(steps=4, batch_size=8, lr=0.1, optimizer=optimizer, clip=1.0), tmp_path / f"{steps}"
        fit(
            task,
            source,
            task.views(task.encoder.spec),
            plan,
            make_fabric("cpu", "float32"),
            folder=folder,
            until=steps,
            quiet=True,
        )
        tensors, _ = load_tensors(folder / "checkpoint" / "latest.safetensors")
        moments.append(
            sum(key.startswith("optimizer.") and key.endswith(("exp_avg", "momentum_buffer")) for key in tensors)
        )
        same = all(torch.equal(*pair) for pair in zip(before, task.head.parameters(), strict=True))
        assert same == (steps == 1)
    count = len(list(task.parameters()))
    assert moments == [count - len(list(task.head.parameters())), count]
    again = Frozen(build_encoder("convnet", ImageSpec.of(12, 1)))
    fit(
        again,
        source,
        task.views(task.encoder.spec),
        plan,
        make_fabric("cpu", "float32"),
        folder=tmp_path / "1",
        quiet=True,
    )  # resumes


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_fused_step_is_the_plain_one_in_channels_last_and_after_a_stop(name: str) -> None:
    """Steps on equal gradients: in whole trainings Adam makes the rounding of two kernels grow."""

    def stepped(fused: bool) -> Tensor:
        torch.manual_seed(0)
        task = Rotation(build_encoder("convnet", ImageSpec.of(12, 3)))
        channels_last(task)
        generator, saved = torch.Generator().manual_seed(1), dict[str, Tensor]()
        for step in range(6):
            if step in (0, 3):
                optimizer = build_optimizer(task, name, 0.01, 0.1, fused=fused)
                restore(saved or training_state(task, optimizer, Precision()), task, optimizer, Precision(), "here")
            for parameter in task.parameters():
                gradient = torch.randn(parameter.shape, generator=generator)
                parameter.grad = torch.empty_like(parameter).copy_(gradient)  # laid out as autograd does
            optimizer.step()
            saved = {key: tensor.contiguous() for key, tensor in training_state(task, optimizer, Precision()).items()}
        return torch.cat([p.detach().flatten() for p in task.parameters()])

    torch.testing.assert_close(stepped(True), stepped(False), rtol=1e-5, atol=1e-6)


def test_rotations_are_exact_and_differ_per_sample() -> None:
    x = torch.arange(2 * 3 * 4 * 4, dtype=torch.float32).view(2, 3, 4, 4)
    rotated, label = all_rotations(x)
    assert label.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    for k in range(4):
        expected = np.rot90(x.numpy(), k, axes=(2, 3))
        np.testing.assert_array_equal(rotated[2 * k : 2 * k + 2].numpy(), expected)
    assert set(rotated.unique().tolist()) == set(x.unique().tolist()), "no value was resampled"


class Exploding(Rotation):
    """Rotation whose loss is NaN at the fourth step."""

    def loss(self, batch):
        loss = super().loss(batch)
        return loss._replace(value=loss.value * math.nan) if self.progress >= 3 / 8 else loss


def test_a_loss_that_is_not_finite_stops_the_run(source: Arrays, tmp_path: Path) -> None:
    with pytest.raises(
        RunFailed, match=r"loss is nan at step 4 with learning rate 0\.00\d+; .* checkpoint is of step 0"
    ):
        selfsup.pretrain(
            source, task=Exploding, encoder="convnet", steps=8, batch_size=16, out=tmp_path / "r", quiet=True
        )
    assert not (tmp_path / "r" / "encoder.safetensors").exists()
    assert not (tmp_path / "r" / "checkpoint" / "latest.safetensors").exists(), "nothing bad was saved"


class Counting(Task):
    """Learns nothing; counts what the loop calls."""

    def __init__(self, encoder):
        super().__init__(encoder)
        self.register_buffer("calls", torch.zeros(2))
        self.seen = []

    def views(self, spec):
        return Rotation(self.encoder).views(spec)

    def loss(self, batch):
        assert self.training
        assert batch["x"].dtype == torch.float32
        assert batch["x"].is_contiguous(memory_format=torch.channels_last)
        self.seen.append((self.progress, torch.rand(()).item(), batch["index"].tolist()))
        return Loss(self.encoder(batch["x"]).square().mean())

    def after_step(self):
        self.calls += 1

    def panels(self, batch, guess=False):
        return []


@pytest.mark.parametrize("shape", [(1,), (2, 2), None])
def test_a_loss_that_is_no_scalar_is_refused_in_a_line(source: Arrays, shape: tuple[int, ...] | None) -> None:
    class Odd(Counting):
        def loss(self, batch):
            value = super().loss(batch).value
            return value if shape is None else Loss(value.expand(shape))

    found = "Tensor" if shape is None else str(shape)
    with pytest.raises(UserError, match=rf"Odd.loss must return a Loss with one scalar tensor, not {re.escape(found)}"):
        Odd(build_encoder("convnet", ImageSpec.of(12, 1)))(
            {"x": torch.zeros(4, 1, 12, 12).to(memory_format=torch.channels_last), "index": torch.arange(4)}
        )


def test_the_loop_sets_progress_noise_order_and_after_step(source: Arrays) -> None:
    task = Counting(build_encoder("convnet", ImageSpec.of(12, 1)))
    fit(
        task,
        source,
        task.views(ImageSpec.of(12, 1)),
        Plan(steps=8, batch_size=16),
        make_fabric("cpu", "float32"),
        quiet=True,
    )
    assert task.calls.tolist() == [8, 8]
    progress, noise, order = zip(*task.seen, strict=True)
    assert progress == tuple(step / 8 for step in range(8))
    assert len(set(noise)) == 8, "each step has noise of its own"
    for epoch in (order[:4], order[4:]):
        assert sorted(chain.from_iterable(epoch)) == list(range(64)), "an epoch visits each sample once"
    assert order[:4] != order[4:]


def test_metrics_are_logged_beside_chance(source: Arrays, tmp_path: Path) -> None:
    run = selfsup.pretrain(source, encoder="convnet", steps=5, batch_size=16, out=tmp_path / "r", quiet=True)
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert all(line["chance"] == pytest.approx(math.log(4), abs=1e-5) for line in lines)
    assert all({"loss", "accuracy", "lr", "samples_per_s", "waiting"} <= line.keys() for line in lines)
    assert list(run.folder.glob("events.out.tfevents*"))


def test_the_time_left_is_not_told_by_the_first_batch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It waits for compilers: a run of ten minutes must not begin with "an hour left"."""
    now = [0.0]
    monkeypatch.setattr("selfsup.base.progress.time.monotonic", lambda: now[0])
    with Progress(steps=101, start=0, batch_size=8) as progress:
        for step, (wait, work) in enumerate([(20.0, 1.0), (0.25, 0.75)], 1):
            now[0] += wait
            progress.wait(wait)
            now[0] += work
            progress.update(step, {"loss": 1.0}, None)
    assert capsys.readouterr().err.startswith(
        "step 1/101 · 100 s left · loss 1.000 · 8 samples/s · waiting for data 0%"
    )
    assert (progress.rate, progress.waiting) == (8.0, 0.125)


@pytest.mark.parametrize(("start", "factor"), [(0, 4.0), (0, 3.0), (50, 4.0), (70, 4.0)])
def test_the_time_left_knows_that_steps_of_whole_images_are_slower(
    monkeypatch: pytest.MonkeyPatch, start: int, factor: float
) -> None:
    """100 steps, the first 60 of half the size at 1 s, the others at `factor` s."""
    now = [0.0]
    monkeypatch.setattr("selfsup.base.progress.time.monotonic", lambda: now[0])
    with Progress(steps=100, start=start, batch_size=8, quiet=True, low_res=60) as progress:
        progress.wait(1.0)
        for step in range(start + 1, 101):
            now[0] += 1.0 if step <= 60 else factor
            true = max(0, 60 - step) + min(40, 100 - step) * factor
            told = progress.left(step, now[0])
            if step <= 60 and factor != 4:  # it does not know yet
                assert told == pytest.approx(max(0, 60 - step) + min(40, 100 - step) * 4)
            elif step > 61 or factor == 4:  # the first one after the change tells when it began
                assert told == pytest.approx(true)


def test_minutes_become_steps_once(source: Arrays, tmp_path: Path) -> None:
    options = {"encoder": "convnet", "minutes": 0.02, "batch_size": 16, "quiet": True, "out": tmp_path / "r"}
    run = selfsup.pretrain(source, **options)
    assert run.recipe["plan"]["steps"] >= 1
    assert selfsup.pretrain(source, **options).recipe["plan"] == run.recipe["plan"]


def test_weights_do_not_depend_on_measuring_speed(source: Arrays, tmp_path: Path) -> None:
    """Stating what bfloat16 saves, which a quiet run does not do, leaves no trace in the run."""
    for name, quiet in (("loud", False), ("quiet", True)):
        selfsup.pretrain(source, encoder="convnet", steps=3, batch_size=16, out=tmp_path / name, quiet=quiet)
    loud, quiet_ = ((tmp_path / name / "encoder.safetensors").read_bytes() for name in ("loud", "quiet"))
    assert loud == quiet_


def test_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert resolve_precision("float16", cpu) == "float16"
    monkeypatch.setattr("selfsup.train.precision._cpu_has_bfloat16", lambda: True)
    assert resolve_precision("auto", cpu) == "bfloat16"
    monkeypatch.setattr("selfsup.train.precision._cpu_has_bfloat16", lambda: False)
    assert resolve_precision("auto", cpu) == "float32"
    with pytest.raises(UserError, match="unknown precision 'int8'"):
        resolve_precision("int8", cpu)


def test_a_checkpoint_survives_a_write_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.safetensors"
    save_tensors(path, {"a": torch.ones(2)}, {"step": 1})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunFailed, match=r"cannot write .*No space left"):
        save_tensors(path, {"a": torch.zeros(2)}, {"step": 2})
    tensors, about = load_tensors(path)
    assert about == {"step": 1}
    assert tensors["a"].tolist() == [1, 1]
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"], "nothing is left beside it"


def test_training_learns_rotation(digits_run: selfsup.Run) -> None:
    run = digits_run
    last = json.loads((run.folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["loss"] < 0.75 * math.log(4)
    x = torch.zeros(3, 1, 8, 8)
    assert run.load()(x).shape == (3, 128)
    assert F.cosine_similarity(run.load()(x), run.load()(x)).min() > 0.999


def test_sixteen_bits_and_four_channels_train(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 65535, (32, 12, 12, 4), dtype=np.uint16)
    run = selfsup.pretrain(Arrays(x), encoder="convnet", steps=2, batch_size=16, out=tmp_path / "r", quiet=True)
    assert run.spec.channels == 4
    assert selfsup.embed(run, Arrays(x), out=tmp_path / "e.parquet", quiet=True).rows == 32


@pytest.mark.parametrize("task", ["simclr", "swav", "instance"])
def test_one_image_of_a_task_that_compares_images_is_no_success(task: str, tmp_path: Path) -> None:
    image = np.zeros((1, 16, 16, 3), np.uint8)
    with pytest.raises(RunFailed, match=r"leave nothing to learn: with 1 of them, .* every guess is right"):
        selfsup.pretrain(image, task=task, encoder="convnet", steps=2, out=tmp_path / "run", quiet=True)


def test_one_image_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = np.zeros((1, 16, 16, 3), np.uint8)
    selfsup.pretrain(image, task="byol", encoder="convnet", steps=1, out=tmp_path / "byol", quiet=True)
    assert "one sample: where byol compares samples with each other, it learns nothing" in capsys.readouterr().err
    selfsup.pretrain(image, task="rotation", encoder="convnet", steps=1, out=tmp_path / "rotation", quiet=True)
    assert "one sample" not in capsys.readouterr().err


def test_one_sample_for_batch_norm_is_one_line(tmp_path: Path) -> None:
    image = np.zeros((1, 16, 16, 3), np.uint8)
    with pytest.raises(RunFailed, match="one readable sample, over which BatchNorm has no variance"):
        selfsup.pretrain(image, task="jigsaw", encoder="convnet", steps=1, out=tmp_path / "run", quiet=True)
