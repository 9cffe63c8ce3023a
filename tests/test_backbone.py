"""Patch features and maps for other code: backbones, and programs that take images of any size."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path

import onnxruntime
import pytest
import torch
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork

import selfsup
from selfsup.cli import main
from selfsup.encoders import build_encoder
from selfsup.encoders.image.backbone import Backbone
from selfsup.encoders.image.timm_model import TimmModel
from selfsup.errors import UserError
from selfsup.exporters.maps import maps_program
from selfsup.nn.image.dense import patch_features
from selfsup.spec import ImageSpec


def test_maps_of_any_number_and_size_equal_eager(tmp_path: Path) -> None:
    run = selfsup.pretrain(
        "digits", encoder="vit-mini", steps=1, batch_size=4, size=32, out=tmp_path / "run", quiet=True, workers=0
    )
    made = selfsup.export(run, format="onnx", output="maps", out=tmp_path / "e.onnx")
    session, encoder = onnxruntime.InferenceSession(made.path), run.load()
    assert "images (B, 1, H, W), H and W multiples of 4, -> patch features (B, D, h, w)" in made.how
    assert json.loads(session.get_modelmeta().custom_metadata_map["selfsup"])["output"] == "maps"
    for count, sides in ((1, (32, 32)), (3, (24, 64))):
        x = torch.randn(count, 1, *sides, generator=torch.Generator().manual_seed(0))
        found = torch.from_numpy(session.run(None, {"x": x.numpy()})[0])
        torch.testing.assert_close(found, patch_features(encoder, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "size", "step"), [("convnet", 32, 4), ("test_resnet", 32, 8), ("nature-cnn", 64, 16)])
def test_sides_are_multiples_of_what_a_place_stands_for(name: str, size: int, step: int) -> None:
    spec = ImageSpec.of(size, 3)
    program, x, dims, words = maps_program(build_encoder(name, spec).eval(), spec, name)
    assert f"multiples of {step}," in words
    assert set(dims) == {0, 2, 3}
    assert x.shape[2] != x.shape[3]
    assert all(side % step == 0 for side in x.shape[2:])
    if name == "convnet":
        exported = torch.export.export(program, (x,), dynamic_shapes=(dims,)).module()
        x = torch.randn(3, 3, 24, 40, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(exported(x), program(x))


def test_what_has_no_maps_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = selfsup.pretrain("digits", encoder="mlp", steps=1, batch_size=4, out=tmp_path / "run", quiet=True, workers=0)
    for words, reason in (
        (["--format", "onnx"], "mlp has no patch features of images, so --output maps is not for it"),
        ([], "--output is for --format torch and onnx, not safetensors"),
    ):
        assert main(["export", str(run.folder), "--output", "maps", *words]) == 2
        assert reason in capsys.readouterr().err
    with pytest.raises(UserError, match="has no maps of several stages"):
        selfsup.load_backbone(run)


@pytest.mark.parametrize(
    ("name", "size", "channels", "reductions"),
    [
        ("convnet", 32, [8, 16, 32], [2, 4, 4]),
        ("test_resnet", 96, [32, 32, 48, 192, 96], [2, 4, 8, 16, 32]),
        ("test_resnet", 32, [32, 32, 48, 192, 96], [1, 1, 2, 4, 8]),  # with the stem for small images
        ("nature-cnn", 64, [32, 64, 64], [4, 11, 16]),
        ("vit-mini", 32, [64, 64], [4, 4]),
    ],
)
def test_a_backbone_tells_the_channels_and_reductions_of_its_maps(
    name: str, size: int, channels: list[int], reductions: list[int]
) -> None:
    encoder = build_encoder(name, ImageSpec.of(size, 3))
    backbone = Backbone(encoder)
    assert encoder.training
    info = backbone.eval().feature_info
    assert (info.channels(), info.reduction()) == (channels, reductions)
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    maps = backbone(x)
    assert [one.shape[1] for one in maps] == channels
    torch.testing.assert_close(maps[-1], patch_features(encoder, x))
    last = Backbone(encoder, [-1 % len(channels)])
    assert last.feature_info.channels() == channels[-1:]
    torch.testing.assert_close(last.eval()(x)[0], maps[-1])
    with pytest.raises(UserError, match="out_indices are numbers of stages from 0 to"):
        Backbone(encoder, [9])


def test_a_deep_transformer_has_a_map_for_each_quarter_of_its_blocks() -> None:
    encoder = TimmModel("vit_tiny_patch16_224", ImageSpec.of(32, 3), depth=6).eval()
    seen: list[torch.Tensor] = []
    for number in (1, 2, 4, 5):
        encoder.model.blocks[number].register_forward_hook(lambda module, inputs, output: seen.append(output))
    maps = Backbone(encoder)(torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(0)))
    assert [one.shape for one in maps] == [(1, 192, 8, 12)] * 4
    for one, tokens in zip(maps, seen[-4:], strict=True):
        torch.testing.assert_close(one.flatten(2).transpose(1, 2), encoder.model.norm(tokens)[:, 1:])


def test_mask_rcnn_of_torchvision_takes_it_behind_a_pyramid() -> None:
    class Pyramid(torch.nn.Module):
        def __init__(self, backbone: Backbone, out_channels: int) -> None:
            super().__init__()
            self.backbone, self.out_channels = backbone, out_channels
            self.fpn = FeaturePyramidNetwork(backbone.feature_info.channels(), out_channels)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return self.fpn(OrderedDict((str(i), one) for i, one in enumerate(self.backbone(x))))

    backbone = Backbone(build_encoder("test_resnet", ImageSpec.of(96, 3)), [2, 3])
    anchors = AnchorGenerator(((8,), (16,)), ((1.0,),) * 2)
    model = MaskRCNN(Pyramid(backbone, 8), 2, min_size=64, max_size=96, rpn_anchor_generator=anchors)
    box = torch.tensor([[8.0, 8.0, 40.0, 40.0]])
    mask = torch.zeros(1, 64, 80, dtype=torch.uint8)
    mask[:, 8:40, 8:40] = 1
    losses = model([torch.rand(3, 64, 80)], [{"boxes": box, "labels": torch.tensor([1]), "masks": mask}])
    sum(losses.values()).backward()
    assert losses["loss_mask"].isfinite()
    assert backbone.encoder.model.conv1[0].weight.grad is not None
