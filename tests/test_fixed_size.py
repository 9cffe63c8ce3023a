"""Encoders that see images of one size alone: patches are resized for them, crops of several sizes are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import selfsup
from selfsup.encoders import build_encoder
from selfsup.errors import UserError
from selfsup.spec import ImageSpec

GIVEN = {"steps": 1, "batch_size": 4, "size": 32, "quiet": True, "workers": 0, "device": "cpu"}


@pytest.mark.parametrize("encoder", ["mlp", "nature-cnn"])
@pytest.mark.parametrize("task", ["dino", "swav"])
def test_crops_of_several_sizes_are_refused_in_one_line(images: Path, tmp_path: Path, task: str, encoder: str) -> None:
    with pytest.raises(UserError, match=f"views of 14 pixels beside those of 32, which {encoder} .*--encoder convnet"):
        selfsup.pretrain(images, task=task, encoder=encoder, out=tmp_path / "run", **GIVEN)
    assert not (tmp_path / "run").exists(), "before anything is written"


def test_small_images_first_are_refused_in_one_line(images: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--low-res-first: mlp cannot take 16 pixels, half of 32"):
        selfsup.pretrain(
            images, task="simclr", encoder="mlp", low_res_first=0.5, out=tmp_path / "run", **GIVEN | {"steps": 2}
        )
    assert not (tmp_path / "run").exists()


def test_another_size_is_refused_by_the_encoder_itself() -> None:
    with pytest.raises(UserError, match="sees images of 32 pixels alone, and was shown 16"):
        build_encoder("mlp", ImageSpec.of(32, 3))(torch.zeros(2, 3, 16, 16))


@pytest.mark.parametrize("task", ["jigsaw", "relative_position", "counting", "cpc", "exemplar"])
def test_patches_are_resized(images: Path, tmp_path: Path, task: str) -> None:
    run = selfsup.pretrain(images, task=task, encoder="nature-cnn", out=tmp_path / "run", **GIVEN)
    assert run.load().spec.size == 32
