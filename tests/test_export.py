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
import selfsup.exporters.image
from selfsup import exporters
from selfsup.encoders import build_encoder
from selfsup.errors import UserError
from selfsup.spec import ImageSpec


@pytest.fixture(scope="module", params=["convnet", "test_vit"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> selfsup.Run:
    out = tmp_path_factory.mktemp("runs") / "run"
    return selfsup.pretrain("digits", encoder=request.param, steps=1, batch_size=4, size=14, out=out, quiet=True)


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
    assert about["mean"] == pytest.approx(list(run.spec.mean))
    assert about["size"] == 14


def test_safetensors_load_into_a_fresh_encoder(run: selfsup.Run, tmp_path: Path) -> None:
    path = selfsup.export(run, out=tmp_path / "e.safetensors").path
    encoder = build_encoder(run.encoder_name, run.spec)
    encoder.load_state_dict(load_file(path))
    torch.testing.assert_close(encoder.eval()(images(3)), run.load()(images(3)))
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["selfsup"])["encoder"] == run.encoder_name


PRINTED = [  # small ones of each family, at a size with the small stem and one without
    ("test_resnet", 32), ("test_resnet", 96), ("resnet18", 32), ("resnet18d", 32), ("test_efficientnet", 32),
    ("test_efficientnet", 96), ("mobilenetv3_small_050", 32), ("lcnet_035", 96), ("regnetx_002", 64),
    ("test_convnext", 32), ("test_convnext", 96), ("test_vit", 32), ("test_vit3", 96), ("vit-mini", 28), ("vit", 96),
    ("vit_tiny_patch16_224", 96), ("deit_tiny_patch16_224", 32), ("test_nfnet", 96), ("test_byobnet", 32),
    ("test_mambaout", 64), ("mobilevit_xxs", 32), ("ghostnet_050", 64), ("repvgg_a0", 32), ("test_maxvit", 96),
    ("vit_tiny_r_s16_p8_224", 64), ("deit_tiny_distilled_patch16_224", 64), ("levit_128s", 32),
]  # fmt: skip


def write_timm(name: str, size: int, path: Path, **more: bool) -> tuple[torch.nn.Module, str]:
    """Return an encoder whose weights and statistics are not those that it began with, and the printed line."""
    torch.manual_seed(0)
    encoder = build_encoder(name, ImageSpec.of(size, 2), **more).eval()
    for key, value in encoder.state_dict().items():
        if value.is_floating_point():
            value.add_(0.1 * torch.rand_like(value) if "var" in key else 0.02 * torch.randn_like(value))
    return encoder, exporters.image.write(encoder, encoder.spec, name, "timm", path, {"task": "rotation"})


@pytest.mark.parametrize(("name", "size"), PRINTED)
def test_the_printed_line_makes_the_same_function(name: str, size: int, tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    encoder, how = write_timm(name, size, path)
    made: dict[str, torch.nn.Module] = {}
    exec(how.removeprefix("load: "), made)
    x = torch.randn(2, 2, size, size)
    torch.testing.assert_close(made["model"](x), encoder(x), rtol=1e-4, atol=1e-4)
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["selfsup"])["load"] in how
    if encoder.replaced:  # timm's own model must not take it without a word
        with pytest.raises(RuntimeError, match="load"):
            timm.create_model(name, num_classes=0, in_chans=2).load_state_dict(load_file(path))


def test_the_command_prints_that_line(tmp_path: Path) -> None:
    run = selfsup.pretrain(
        "digits", encoder="test_vit", size=96, steps=1, batch_size=2, out=tmp_path / "run", quiet=True
    )
    made: dict[str, torch.nn.Module] = {}
    exec(selfsup.export(run, format="timm", out=tmp_path / "e.safetensors").how.removeprefix("load: "), made)
    x = torch.randn(2, 1, 96, 96)
    torch.testing.assert_close(made["model"](x), run.load()(x), rtol=1e-4, atol=1e-4)


def test_a_model_that_timm_cannot_make_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = build_encoder("test_resnet", ImageSpec.of(32, 2)).eval()
    monkeypatch.setattr(encoder, "replaced", {})
    with pytest.raises(UserError, match=r"timm cannot make the model .* with its small stem; use selfsup\.load"):
        exporters.image.write(encoder, encoder.spec, "test_resnet", "timm", tmp_path / "e", {"task": "rotation"})
    assert not list(tmp_path.iterdir())


def test_a_convnet_is_not_a_timm_model(tmp_path: Path) -> None:
    run = selfsup.pretrain("digits", encoder="convnet", steps=1, batch_size=2, out=tmp_path / "run", quiet=True)
    with pytest.raises(UserError, match=r"encoder of rotation with convnet is not a timm model; use selfsup\.load"):
        selfsup.export(run, format="timm", out=tmp_path / "e.safetensors")


def test_pretrained_weights_are_loaded_into_the_stem_that_they_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained=False, **more: create(name, **more))
    given = {"steps": 1, "batch_size": 2, "quiet": True}
    run = selfsup.pretrain("digits", encoder="test_resnet", pretrained=True, size=32, out=tmp_path / "run", **given)
    further = selfsup.pretrain("digits", init=run.folder, out=tmp_path / "further", **given)
    for one in (run, further, selfsup.pretrain("digits", init=further.folder, out=tmp_path / "more", **given)):
        assert one.load().stem == "standard"
    assert build_encoder("test_resnet", run.spec).stem == "small"


def test_the_cost_of_the_small_stem_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = {"encoder": "resnet10t", "steps": 1, "batch_size": 2, "quiet": True, "out": tmp_path / "run"}
    selfsup.pretrain("digits", size=16, **given)
    told = capsys.readouterr().err
    assert "resnet10t takes 16 × 16 images with the stem for small ones" in told
    assert "From --size 65 on it keeps its own" in told
    selfsup.pretrain("digits", size=16, **given)
    assert "stem" not in capsys.readouterr().err
    (note,) = build_encoder("resnet18", ImageSpec.of(64, 3)).notes
    assert "15.0 times the operations of its own stem, as many as at 248 pixels" in note
    assert build_encoder("resnet18", ImageSpec.of(65, 3)).notes == ()


def test_hybrid_transformers_have_no_patches_of_pixels() -> None:
    encoder = build_encoder("vit_tiny_r_s16_p8_224", ImageSpec.of(64, 3))
    assert encoder.has_tokens
    assert encoder.patch == encoder.grid == 0
    for task in ("mae", "simmim", "ibot"):
        with pytest.raises(UserError, match="this task masks patches, which needs a plain vision transformer"):
            selfsup.tasks.find_task(task)(encoder)


@pytest.mark.parametrize("format", ["torch", "onnx"])
def test_what_cannot_be_traced_is_told_in_one_line(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = selfsup.pretrain("digits", encoder="convnet", steps=1, batch_size=2, out=tmp_path / "run", quiet=True)

    def branches(self: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x) if x.sum() > 0 else -self.layers(x)

    monkeypatch.setattr(type(run.load()), "forward", branches)
    with pytest.raises(
        UserError, match=rf"convnet .* cannot be exported as {format}: .*; use selfsup\.load, or"
    ) as told:
        selfsup.export(run, format=format, out=tmp_path / "e")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "resnet18.nonsense",
            "timm has no weights with the tag 'nonsense' for resnet18: give resnet18 or, of resnet18.TAG",
        ),
        ("vit_tiny_patch16_224.dino", "timm has no weights with the tag 'dino' for vit_tiny_patch16_224"),
        ("timm/resnet18.a1_in1k", "name on the Hugging Face Hub.* give --encoder resnet18.a1_in1k"),
        ("hf-hub:timm/resnet18", "give --encoder resnet18$"),
    ],
)
def test_tags_and_prefixes_are_told_as_such(name: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        build_encoder(name, ImageSpec.of(32, 3))


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
def test_small_images_get_the_small_stem(name: str, size: int, side: int) -> None:
    encoder = build_encoder(name, ImageSpec.of(size, 2)).eval()
    assert encoder.stem == "small"
    maps = encoder.maps(torch.zeros(1, 2, size, size))
    assert maps.shape[2:] == (side, side)
    assert encoder(torch.zeros(2, 2, size, size)).shape == (2, encoder.dim)
    with pytest.raises(UserError, match="no tokens: use a transformer"):
        encoder.tokens(torch.zeros(1, 2, size, size))


def test_larger_images_keep_the_standard_stem() -> None:
    encoder = build_encoder("resnet18", ImageSpec.of(96, 3))
    assert encoder.stem == "standard"
    assert encoder.model.conv1.stride == (2, 2)


def test_transformers_have_tokens() -> None:
    encoder = build_encoder("vit_tiny_patch16_224", ImageSpec.of(28, 1)).eval()
    assert encoder.tokens(torch.zeros(1, 1, 28, 28)).shape == (1, 1 + 7 * 7, 192)
    with pytest.raises(UserError, match="no feature maps: use a convolutional"):
        encoder.maps(torch.zeros(1, 1, 28, 28))


def test_names_and_sizes_that_do_not_fit_say_so() -> None:
    with pytest.raises(UserError, match="unknown encoder 'resnet81'; did you mean 'resnet18'"):
        build_encoder("resnet81", ImageSpec.of(32, 3))
    with pytest.raises(UserError, match="hiera_tiny_224 cannot take 28 × 28 images: give another --size"):
        build_encoder("hiera_tiny_224", ImageSpec.of(28, 3))
