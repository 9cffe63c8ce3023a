"""BatchNorm at the read-out: statistics of plain samples, the same after a kill, and for the untrained encoder."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import selfsup
from selfsup import pretraining, request
from selfsup.data.image import Arrays
from selfsup.data.open import open_data
from selfsup.encoders import build_encoder
from selfsup.errors import RunFailed, UserError
from selfsup.nn.norm import BatchNormMaps, keep_statistics, synchronised
from selfsup.source import Broken
from selfsup.spec import ImageSpec
from selfsup.train.recalibrate import BATCH, SAMPLES, recalibrate
from selfsup.views import plain_views
from support.sources import images

OPTIONS = {"task": "relative_position", "encoder": "convnet", "steps": 3, "batch_size": 16, "seed": 3, "quiet": True}


def statistics(encoder: nn.Module) -> list[torch.Tensor]:
    return [
        part
        for one in encoder.modules()
        if isinstance(one, nn.BatchNorm2d)
        for part in (one.running_mean, one.running_var)
    ]


def test_statistics_are_those_of_plain_samples() -> None:
    source, spec = images(), ImageSpec.of(32, 3)
    encoder = build_encoder("convnet", spec)
    before = {name: value.clone() for name, value in encoder.named_parameters()}
    assert recalibrate(encoder, source, spec, seed=0, device="cpu") == len(source) < BATCH
    views = plain_views(spec)
    x = views.finish(views.fetch(source, np.arange(len(source)), 0, 0).batch)["x"]
    read = encoder(x)
    encoder.train()
    assert torch.allclose(read, encoder(x), atol=0.02), "one batch of all samples is normalized by its own statistics"
    assert all(torch.equal(before[name], value) for name, value in encoder.named_parameters())


def test_some_of_many_samples_are_drawn_by_the_seed() -> None:
    generator = np.random.default_rng(0)
    source, spec = Arrays(generator.integers(0, 255, (SAMPLES + 200, 8, 8, 1), dtype=np.uint8)), ImageSpec.of(8, 1)
    encoder, found = build_encoder("convnet", spec), []
    for seed in (0, 0, 1):
        assert recalibrate(encoder, source, spec, seed=seed, device="cpu") == SAMPLES
        found.append(torch.cat(statistics(encoder)).clone())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert not encoder.training
    assert all(one.momentum == 0.1 and not one.training for one in encoder.modules() if isinstance(one, nn.BatchNorm2d))


def test_nothing_happens_without_batch_norm_or_without_samples() -> None:
    source, spec = images(), ImageSpec.of(32, 3)
    assert recalibrate(build_encoder("vit-mini", spec), source, spec, seed=0, device="cpu") == 0
    assert recalibrate(build_encoder("convnet", spec), source.take(np.array([0])), spec, seed=0, device="cpu") == 0


def test_a_source_that_cannot_be_read_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    source, spec = images(), ImageSpec.of(32, 3)

    def broken(*_: object) -> None:
        raise Broken("no image")

    monkeypatch.setattr("selfsup.views.image.views.ImageViews.fetch", broken)
    with pytest.raises(RunFailed, match="no image"):
        recalibrate(build_encoder("convnet", spec), source, spec, seed=0, device="cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> selfsup.Run:
    return selfsup.pretrain(images(), **OPTIONS, out=tmp_path_factory.mktemp("runs") / "run")


def test_a_run_keeps_them_and_says_so(run: selfsup.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loud = selfsup.pretrain(images(), **OPTIONS | {"quiet": False}, out=tmp_path / "loud")
    assert "BatchNorm: statistics measured again on 64 samples" in capsys.readouterr().err
    assert loud.recipe["recalibrated"] == run.recipe["recalibrated"] == 64
    off = selfsup.pretrain(images(), **OPTIONS, recalibrate=False, out=tmp_path / "off")
    assert "recalibrated" not in off.recipe
    trained, plain = off.load(), run.load()
    assert all(torch.equal(a, b) for a, b in zip(trained.parameters(), plain.parameters(), strict=True))
    task, _ = off.load_task()
    assert all(torch.equal(a, b) for a, b in zip(statistics(trained), statistics(task.encoder), strict=True))
    recalibrate(trained, images(), off.spec, seed=OPTIONS["seed"], device="cpu")
    assert all(torch.equal(a, b) for a, b in zip(statistics(trained), statistics(plain), strict=True))
    with pytest.raises(UserError, match="recalibrated: None here, 64 requested"):
        selfsup.pretrain(images(), **OPTIONS, out=tmp_path / "off")


def test_a_run_killed_before_its_last_file_ends_with_the_same_bits(
    run: selfsup.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pretraining, "recalibrate", killed)
        with pytest.raises(KeyboardInterrupt):
            selfsup.pretrain(images(), **OPTIONS, out=tmp_path / "run")
    assert not selfsup.Run(tmp_path / "run").done
    again = selfsup.pretrain(images(), **OPTIONS, out=tmp_path / "run")
    assert again.weights_digest() == run.weights_digest()


def test_one_process_does_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder of a run in several processes waits for all of them at each BatchNorm; this one does not."""
    built = request.build(request.resolve("simclr", images(), {}, encoder="convnet"), batch_size=16)
    monkeypatch.setattr("selfsup.nn.norm.world_size", lambda: 2)
    monkeypatch.setattr("selfsup.nn.norm.sum_over_ranks", lambda _: pytest.fail("waits for the others"))
    synchronised(built.task.encoder, torch.device("cpu"))
    assert any(isinstance(one, BatchNormMaps) for one in built.task.encoder.modules())
    kept = pretraining.read_out(built, built.task.encoder.state_dict(), built.source)
    alone = build_encoder("convnet", built.asked.spec)
    alone.load_state_dict(built.task.encoder.state_dict())
    recalibrate(alone, images(), built.asked.spec, seed=0, device="cpu")
    assert all(torch.equal(a, b) for a, b in zip(statistics(kept), statistics(alone), strict=True))


def test_the_untrained_encoder_gets_the_same_and_codes_their_own_row(tmp_path: Path) -> None:
    digits = open_data("digits")
    few = digits.take(np.arange(0, len(digits), 8))
    run = selfsup.pretrain(few, task="vae", encoder="convnet", steps=1, batch_size=8, out=tmp_path / "run", quiet=True)
    read = []

    def noted(encoder: nn.Module, *rest: object, **more: object) -> int:
        read.append(type(encoder).__name__)
        return recalibrate(encoder, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("selfsup.evaluation.measuring.recalibrate", noted)
        result = selfsup.evaluate(
            run, data=few, shots="5", draws=2, protocol="linear", metrics="label-free", scratch=False, quiet=True
        )
    assert read == ["ConvNet", "Coded"]
    assert {"vae", "untrained", "untrained vae"} <= {score.representation for score in result.scores}
    assert set(result.metrics) == {"vae", "untrained", "untrained vae", "raw pixels"}


def test_an_encoder_with_weights_from_elsewhere_keeps_its_statistics(tmp_path: Path) -> None:
    source = images()
    torch.manual_seed(0)
    module = build_encoder("convnet", ImageSpec.of(32, 3))
    recalibrate(module, source, ImageSpec.of(32, 3), seed=0, device="cpu")
    for name in ("spec", "dim"):  # which an encoder of one's own gets here
        delattr(module, name)
    more = OPTIONS | {"task": "byol", "encoder": module, "pretrained": True}
    run = selfsup.pretrain(source, **more, out=tmp_path / "run")
    assert all(map(torch.equal, statistics(module), statistics(run.load())))
    assert not torch.equal(module.blocks[0][0].weight, run.load().blocks[0][0].weight)
    assert "recalibrated" not in run.recipe
    heads = [part for part in run.load_task()[0].modules() if isinstance(part, nn.BatchNorm1d)]
    assert heads
    assert all(part.num_batches_tracked > 0 for part in heads), "the heads are new: theirs are taken in training"


def test_kept_statistics_stay_whatever_the_mode() -> None:
    encoder = build_encoder("convnet", ImageSpec.of(8, 1))
    keep_statistics(encoder)
    keep_statistics(encoder)  # nothing more happens
    copied = copy.deepcopy(encoder).train()
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    before = [part.clone() for part in statistics(copied)]
    assert torch.equal(copied(x), encoder.eval()(x))
    assert all(map(torch.equal, before, statistics(copied)))
    assert copied.training
    copied(x).square().sum().backward()
    assert copied.blocks[0][1].weight.grad is not None, "its weights are trained"
