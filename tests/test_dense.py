"""Patch features: the same for every image encoder, in the places of the image."""

from __future__ import annotations

import pytest
import torch

from selfsup.encoders import build_encoder
from selfsup.encoders.image.timm_model import TimmModel
from selfsup.errors import UserError
from selfsup.nn.image.dense import has_patch_features, patch_features, patch_shape
from selfsup.spec import ImageSpec

SPEC = ImageSpec.of(32, 3)


@pytest.mark.parametrize(
    ("name", "more", "shape"),
    [
        ("convnet", None, (32, 8, 12)),
        ("test_resnet", {}, (96, 4, 6)),
        ("vit-mini", None, (64, 8, 12)),
        ("vit_tiny_patch16_224", {"depth": 1}, (192, 8, 12)),  # a class token
        ("vit_small_patch16_dinov3", {"depth": 1}, (384, 8, 12)),  # and registers
    ],
)
def test_every_encoder_has_a_map_of_what_it_says_of_each_place(name: str, more: dict | None, shape: tuple) -> None:
    encoder = (build_encoder(name, SPEC) if more is None else TimmModel(name, SPEC, **more)).eval()
    x = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    found = patch_features(encoder, x)
    assert found.shape == (2, *shape)
    assert patch_shape(encoder)[0] == shape[0]
    if encoder.__class__ is TimmModel and encoder.has_tokens:
        tokens = encoder.model.forward_features(x)[:, encoder.prefix :]
        torch.testing.assert_close(found.flatten(2).transpose(1, 2), tokens)


def test_a_place_of_the_map_is_that_of_the_image() -> None:
    """With blocks that do nothing a token is that of its own patch alone."""
    encoder = TimmModel("vit_tiny_patch16_224", SPEC, depth=1).eval()
    encoder.model.blocks = torch.nn.Sequential()
    x = torch.zeros(2, 3, 32, 48)
    x[1, :, 8:12, 40:44] = 1.0  # the third row of patches, the eleventh column
    one, other = patch_features(encoder, x)
    assert (one != other).any(0).nonzero().tolist() == [[2, 10]]


def test_other_transformers_of_timm_drop_their_prefix_too() -> None:
    encoder = TimmModel("deit_tiny_distilled_patch16_224", SPEC, depth=1).eval()
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    tokens = encoder.tokens(x)[:, 2:]  # a class token and one of distillation
    torch.testing.assert_close(patch_features(encoder, x).flatten(2).transpose(1, 2), tokens)


def test_an_encoder_without_patch_features_says_so() -> None:
    encoder = build_encoder("mlp", SPEC)
    assert not has_patch_features(encoder)
    with pytest.raises(UserError, match="no patch features, only one vector an image: use a convolutional encoder or"):
        patch_features(encoder, torch.zeros(1, 3, 32, 32))
