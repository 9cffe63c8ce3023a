"""Exports equal the eager encoder."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import selfsup
from selfsup.encoders import build_encoder
from selfsup.errors import UserError
from selfsup.spec import ImageSpec


@pytest.fixture(scope="module", params=["convnet", "resnet18", "vit_tiny_patch16_224"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> selfsup.Run:
    out = tmp_path_factory.mktemp("runs") / "run"
    return selfsup.pretrain("digits", encoder=request.param, steps=2, batch_size=8, size=14, out=out, quiet=True)


def images(count: int) -> torch.Tensor:
    return torch.randn(count, 1, 14, 14, generator=torch.Generator().manual_seed(count))


def test_torch_and_onnx_equal_eager(run: selfsup.Run, tmp_path: Path) -> None:
    program = torch.export.load(selfsup.export(run, format="torch", out=tmp_path / "e.pt2").path).module()
    exported = selfsup.export(run, format="onnx", out=tmp_path / "e.onnx")
    session = onnxruntime.InferenceSession(exported.path)
    for x in (images(1), images(7)):
        expected = run.load()(x).detach()
        torch.testing.assert_close(program(x), expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(session.run(None, {"x": x.numpy()})[0], expected.numpy(), rtol=1e-4, atol=1e-4)
    about = json.loads(session.get_modelmeta().custom_metadata_map["selfsup"])
    assert about["mean"] == [0.5]
    assert about["size"] == 14


def test_safetensors_load_into_a_fresh_encoder(run: selfsup.Run, tmp_path: Path) -> None:
    path = selfsup.export(run, out=tmp_path / "e.safetensors").path
    encoder = build_encoder(run.encoder_name, run.spec)
    encoder.load_state_dict(load_file(path))
    torch.testing.assert_close(encoder.eval()(images(3)), run.load()(images(3)))
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["selfsup"])["encoder"] == run.encoder_name


def test_timm_loads_what_was_exported_for_it(tmp_path: Path) -> None:
    run = selfsup.pretrain(
        "digits", encoder="resnet18", size=96, steps=1, batch_size=2, out=tmp_path / "run", quiet=True
    )
    path = selfsup.export(run, format="timm", out=tmp_path / "e.safetensors").path
    model = timm.create_model("resnet18", num_classes=0, in_chans=1, checkpoint_path=str(path)).eval()
    x = torch.randn(2, 1, 96, 96)
    torch.testing.assert_close(model(x), run.load()(x), rtol=1e-4, atol=1e-4)


def test_a_convnet_is_no_timm_model(tmp_path: Path) -> None:
    run = selfsup.pretrain("digits", encoder="convnet", steps=1, batch_size=2, out=tmp_path / "run", quiet=True)
    with pytest.raises(UserError, match="convnet is not a timm model; export it as"):
        selfsup.export(run, format="timm", out=tmp_path / "e.safetensors")


@pytest.mark.parametrize(
    ("name", "size", "side"),
    [
        ("resnet18", 32, 4),
        ("resnet50d", 32, 4),
        ("convnext_atto", 32, 4),
        ("efficientnet_b0", 64, 4),
        ("densenet121", 32, 4),
    ],
)
def test_small_pictures_get_the_small_stem(name: str, size: int, side: int) -> None:
    encoder = build_encoder(name, ImageSpec.of(size, 2)).eval()
    assert encoder.stem == "small"
    maps = encoder.maps(torch.zeros(1, 2, size, size))
    assert maps.shape[2:] == (side, side)
    assert encoder(torch.zeros(2, 2, size, size)).shape == (2, encoder.dim)
    with pytest.raises(UserError, match="no tokens; take a transformer"):
        encoder.tokens(torch.zeros(1, 2, size, size))


def test_larger_pictures_keep_the_standard_stem() -> None:
    encoder = build_encoder("resnet18", ImageSpec.of(96, 3))
    assert encoder.stem == "standard"
    assert encoder.model.conv1.stride == (2, 2)


def test_transformers_have_tokens() -> None:
    encoder = build_encoder("vit_tiny_patch16_224", ImageSpec.of(28, 1)).eval()
    assert encoder.tokens(torch.zeros(1, 1, 28, 28)).shape == (1, 1 + 7 * 7, 192)
    with pytest.raises(UserError, match="no feature maps; take a convolutional"):
        encoder.maps(torch.zeros(1, 1, 28, 28))


def test_names_and_sizes_that_do_not_fit_say_so() -> None:
    with pytest.raises(UserError, match="unknown encoder 'resnet81'; did you mean 'resnet18'"):
        build_encoder("resnet81", ImageSpec.of(32, 3))
    with pytest.raises(UserError, match="hiera_tiny_224 cannot take 28 × 28 images: give another --size"):
        build_encoder("hiera_tiny_224", ImageSpec.of(28, 3))
