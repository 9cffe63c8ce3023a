"""`--low-res-first` and `--drop-tokens`: steps see less, and everything else stays as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import Block

import selfsup
from selfsup.encoders.image.convnet import ConvNet
from selfsup.errors import UserError
from selfsup.tasks import TASKS, find_task
from support.sources import images

OPTIONS: dict[str, Any] = {"encoder": "convnet", "batch_size": 8, "size": 24, "quiet": True, "device": "cpu"}

ANY_SIZE = [name for name in TASKS if find_task(name).any_size]


def sizes_seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    seen: list[int] = []
    before = ConvNet.forward

    def forward(self: ConvNet, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 1:  # one image tries the size
            seen.append(x.shape[-1])
        return before(self, x)

    monkeypatch.setattr(ConvNet, "forward", forward)
    return seen


@pytest.mark.parametrize("name", ANY_SIZE)
def test_the_first_steps_are_of_half_the_size(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = sizes_seen(monkeypatch)
    run = selfsup.pretrain(
        images(), task=name, steps=2, low_res_first=0.5, recalibrate=False, out=tmp_path / "run", **OPTIONS
    )
    largest = max(seen)
    half = len(seen) // 2
    assert max(seen[:half]) <= max(8, largest // 2 + 1), "one of two steps"
    assert max(seen[half:]) == largest
    assert run.spec.size == 24
    assert run.load()(run.spec.example(2)).isfinite().all()


def test_stopped_on_either_side_it_resumes_bit_for_bit(tmp_path: Path) -> None:
    weights = []
    for place, stops in enumerate(((), (2,), (3,), (5,), (2, 3, 5))):
        out, asked = tmp_path / str(place), {"task": "simclr", "steps": 6, "low_res_first": 0.5} | OPTIONS
        for until in stops:
            selfsup.pretrain(images(), until=until, out=out, **asked)
        run = selfsup.pretrain(images(), out=out, **asked)
        assert run.recipe["plan"]["low_res_first"] == 0.5
        weights.append((out / "encoder.safetensors").read_bytes())
    assert len(set(weights)) == 1
    plain = selfsup.pretrain(images(), out=tmp_path / "plain", **asked | {"low_res_first": None})
    assert "low_res_first" not in plain.recipe["plan"]
    assert (plain.folder / "encoder.safetensors").read_bytes() not in weights
    with pytest.raises(UserError, match=r"plan\.low_res_first"):
        selfsup.pretrain(images(), out=tmp_path / "plain", **asked)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"task": "jigsaw"}, "jigsaw cannot learn from images of half the size"),
        ({"steps": None, "minutes": 0.1}, "a fraction of --steps or --epochs"),
        ({"size": 14}, "convnet cannot take 7 pixels, half of 14"),
        ({"low_res_first": 1.0}, "at least 0 and less than 1"),
    ],
)
def test_what_it_cannot_do_is_one_line_and_nothing_is_written(
    given: dict[str, Any], message: str, tmp_path: Path
) -> None:
    asked = OPTIONS | {"task": "simclr", "steps": 4, "low_res_first": 0.5} | given
    with pytest.raises(UserError, match=message):
        selfsup.pretrain(images(), out=tmp_path / "run", **asked)
    assert not (tmp_path / "run" / "recipe.json").exists()


@pytest.mark.parametrize("name", ["simclr", "byol", "dino", "empssl"])
def test_the_trained_transformer_sees_some_patches_and_the_kept_one_all(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[tuple[bool, int]] = set()
    before = Block.forward

    def forward(self: Block, x: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
        seen.add((self.training and x.requires_grad, x.shape[1]))
        return before(self, x, *rest, **more)

    monkeypatch.setattr(Block, "forward", forward)
    asked = OPTIONS | {"encoder": "test_vit", "size": 28, "task": name, "steps": 2}
    run = selfsup.pretrain(images(), drop_tokens=0.5, out=tmp_path / "run", **asked)
    whole = 7 * 7 + 1
    trained = {count for trains, count in seen if trains}
    assert max(trained) == (8 if name == "empssl" else 24) + 1, "its crops have 4 × 4 patches, those of others 7 × 7"
    assert run.recipe["plan"]["drop_tokens"] == 0.5
    seen.clear()
    run.load()(run.spec.example(2))
    assert seen == {(False, whole)}


def test_dropped_tokens_are_the_same_in_a_resumed_run(tmp_path: Path) -> None:
    asked = OPTIONS | {"encoder": "test_vit", "size": 28, "task": "simclr", "steps": 4, "drop_tokens": 0.5}
    whole = selfsup.pretrain(images(), out=tmp_path / "whole", **asked)
    selfsup.pretrain(images(), until=2, out=tmp_path / "halves", **asked)
    halves = selfsup.pretrain(images(), out=tmp_path / "halves", **asked)
    plain = selfsup.pretrain(images(), out=tmp_path / "plain", **asked | {"drop_tokens": None})
    one, other, third = ((run.folder / "encoder.safetensors").read_bytes() for run in (whole, halves, plain))
    assert one == other != third


@pytest.mark.parametrize("given", [{"encoder": "convnet"}, {"task": "mae"}])
def test_tokens_are_dropped_where_there_are_some_and_the_task_leaves_them_alone(
    given: dict[str, Any], tmp_path: Path
) -> None:
    asked = OPTIONS | {"encoder": "test_vit", "task": "simclr", "steps": 2, "drop_tokens": 0.5} | given
    with pytest.raises(UserError, match="--drop-tokens is for transformers"):
        selfsup.pretrain(images(), out=tmp_path / "run", **asked)
    assert not (tmp_path / "run" / "recipe.json").exists()
