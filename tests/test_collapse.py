"""The collapse signal fires where it should, and only there."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import selfsup
from selfsup.data.image import Arrays
from selfsup.encoders import build_encoder
from selfsup.spec import ImageSpec
from selfsup.task import Loss
from selfsup.tasks.image.rotation import Rotation
from selfsup.train.collapse import CollapseSignal, spread_and_rank


def test_spread_and_rank_of_known_cases() -> None:
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(128, 64, generator=generator)
    spread, rank = spread_and_rank(wide)
    assert spread == pytest.approx(1, abs=0.05)
    assert 50 < rank <= 64
    spread, rank = spread_and_rank(torch.ones(128, 64) + 1e-4 * wide)
    assert spread < 0.02
    line = torch.randn(128, 1, generator=generator).sign() * torch.randn(1, 64, generator=generator)
    assert spread_and_rank(line)[1] == pytest.approx(1, abs=0.01)
    assert spread_and_rank(torch.ones(128, 64)) == (0, 0)


class Collapsing(Rotation):
    """Gives every image the same features, as a distillation without its stop-gradient ends up doing."""

    def after_step(self):
        norm = self.encoder.blocks[-1][1]
        norm.weight.data.zero_()
        norm.bias.data.fill_(1)


class Hopeless(Rotation):
    """Free labels that nothing can tell: the loss stays at its chance value."""

    def loss(self, batch):
        loss = super().loss({"x": torch.rand_like(batch["x"])})
        return Loss(loss.value * 1e-3 + loss.chance - loss.value.detach() * 1e-3, chance=loss.chance)


@pytest.mark.parametrize(("task", "word"), [(Rotation, "healthy"), (Collapsing, "collapsed"), (Hopeless, "stuck")])
def test_the_last_line_of_the_metrics_says_it(task: type[Rotation], word: str, tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 60, (64, 8, 8, 1), dtype=np.uint8)
    x[:, :4] += 120
    run = selfsup.pretrain(
        Arrays(x), task=task, encoder="convnet", steps=60, batch_size=16, lr=1e-2, out=tmp_path / "r", quiet=True
    )
    last = json.loads((run.folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["health"] == word, last


def test_an_encoder_asked_for_tokens_is_watched_too() -> None:
    encoder = build_encoder("vit-mini", ImageSpec.of(16, 1))
    x = torch.randn(8, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    for word in ("healthy", "collapsed"):
        signal = CollapseSignal(encoder, 64)
        with signal:
            encoder.tokens(x, keep=torch.arange(16).expand(8, -1))
            signal.check(1.0, None, 1.0)
        assert signal.word == word
        torch.nn.init.zeros_(encoder.model.norm.weight)
        torch.nn.init.ones_(encoder.model.norm.bias)
    assert "tokens" not in vars(encoder)


def test_a_copy_of_a_watched_encoder_computes_with_its_own_weights() -> None:
    encoder = build_encoder("convnet", ImageSpec.of(8, 1)).eval()
    x = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    before = encoder(x)
    with CollapseSignal(encoder, 64) as signal:
        copied = copy.deepcopy(encoder)
        torch.nn.init.zeros_(encoder.blocks[0][0].weight)
        assert torch.equal(copied(x), before)
        encoder(x)
        watched = signal.features
        copied(x)
        assert watched is not None
        assert signal.features is watched
