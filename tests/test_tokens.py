"""Vision transformers: leaving patches out, masking them, images of other sizes."""

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from selfsup.encoders import build_encoder
from selfsup.encoders.image.timm_model import TimmModel, sines
from selfsup.errors import UserError
from selfsup.spec import ImageSpec
from selfsup.tasks import find_task

SPEC = ImageSpec.of(32, 3)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


ROTARY = ("vit_small_patch16_dinov3", "eva02_tiny_patch14_224", "vit_small_patch16_rope_mixed_224")


@pytest.mark.parametrize("name", ["vit-mini", "vit_tiny_patch16_224", "deit3_small_patch16_224", *ROTARY])
def test_all_patches_kept_are_the_features_of_timm(name: str, x: torch.Tensor) -> None:
    torch.manual_seed(0)
    encoder = TimmModel(name, SPEC, depth=2) if name != "vit-mini" else build_encoder(name, SPEC)
    encoder.eval()
    everything = torch.arange(encoder.grid**2).expand(3, -1)
    tokens = encoder.tokens(x, everything)
    assert tokens.shape[1] == encoder.prefix + encoder.grid**2
    torch.testing.assert_close(tokens, encoder.model.forward_features(x))
    torch.testing.assert_close(encoder.pool(tokens), encoder(x))
    assert encoder.patch * encoder.grid == SPEC.size


def test_patches_left_out_never_reach_the_blocks(x: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = build_encoder("vit-mini", SPEC)
    keep = torch.rand(3, 64, generator=torch.Generator().manual_seed(0)).argsort(1)[:, :16]
    seen = []
    encoder.model.blocks[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape))
    before = encoder.tokens(x, keep)
    assert seen == [(3, 16, 64)]
    cells = torch.zeros(3, 64).scatter(1, keep, 1).view(3, 1, 8, 8)
    hidden = torch.where(cells.repeat_interleave(4, 2).repeat_interleave(4, 3) > 0, x, 9.0)
    torch.testing.assert_close(encoder.tokens(hidden, keep), before)
    torch.testing.assert_close(encoder.tokens(x, keep.flip(1)), before.flip(1))


@pytest.mark.parametrize("name", ROTARY)
def test_rotary_positions_stay_with_their_patches(name: str, x: torch.Tensor) -> None:
    torch.manual_seed(0)
    encoder = TimmModel(name, SPEC, depth=2).eval()
    for key, value in encoder.named_parameters():  # timm's own start is so small that places hardly matter
        if "gamma" in key:
            nn.init.ones_(value)
        elif value.ndim == 2:
            nn.init.xavier_uniform_(value)
    count = encoder.grid**2
    order = torch.rand(3, count, generator=torch.Generator().manual_seed(0)).argsort(1)
    all_tokens, shuffled = encoder.tokens(x)[:, encoder.prefix :], encoder.tokens(x, order)[:, encoder.prefix :]
    torch.testing.assert_close(shuffled, all_tokens.gather(1, order[..., None].expand(-1, -1, encoder.dim)))
    few = encoder.tokens(x, order[:, : count // 4])
    assert few.shape == (3, encoder.prefix + count // 4, encoder.dim)
    mask = torch.zeros(3, count, dtype=torch.bool)
    mask[:, [3, 40]] = True
    token = torch.randn(1, encoder.dim, generator=torch.Generator().manual_seed(0))
    masked = encoder.tokens(x, mask=mask, mask_token=token)[:, encoder.prefix :]
    changed = x.clone()
    changed[:, :, :4, 12:16] = 9.0  # patch 3
    again = encoder.tokens(changed, mask=mask, mask_token=token)[:, encoder.prefix :]
    torch.testing.assert_close(again, masked)
    assert not torch.allclose(masked[:, 3], masked[:, 40])
    assert encoder.tokens(x[:, :, :12, :12]).shape == (3, encoder.prefix + 9, encoder.dim)


def test_other_transformers_are_refused_in_a_line() -> None:
    with pytest.raises(UserError, match="needs a plain vision transformer: --encoder vit, or for example"):
        find_task("mae")(TimmModel("cait_xxs24_224", SPEC, depth=1))


def test_a_mask_hides_the_pixels_and_keeps_the_place(x: torch.Tensor) -> None:
    encoder = build_encoder("vit-mini", SPEC)
    mask = torch.zeros(3, 64, dtype=torch.bool)
    mask[:, [3, 40]] = True
    token = torch.randn(1, 64, generator=torch.Generator().manual_seed(0))
    before = encoder.tokens(x, mask=mask, mask_token=token)
    changed = x.clone()
    changed[:, :, :4, 12:16] = 9.0  # patch 3
    changed[:, :, 20:24, :4] = -9.0  # patch 40
    torch.testing.assert_close(encoder.tokens(changed, mask=mask, mask_token=token), before)
    assert not torch.allclose(before[:, 3], before[:, 40])
    assert not torch.allclose(before, encoder.tokens(x), atol=1e-3)


def test_a_smaller_image_is_cut_into_fewer_patches(x: torch.Tensor) -> None:
    encoder = build_encoder("vit-mini", SPEC)
    assert encoder(x[:, :, :12, :12]).shape == (3, 64)
    assert encoder.tokens(x[:, :, :12, :12]).shape == (3, 9, 64)


def test_outputs_of_the_mlps_are_what_they_add_to_the_tokens(x: torch.Tensor) -> None:
    encoder = build_encoder("vit-mini", SPEC)
    found = encoder.mlp_outputs(x, 2)
    tokens = encoder.model.patch_embed(x).flatten(1, 2) + encoder.model.pos_embed
    for block, output in zip(encoder.model.blocks, found, strict=True):
        tokens = tokens + block.attn(block.norm1(tokens))
        torch.testing.assert_close(output, block.mlp(block.norm2(tokens)))
        tokens = tokens + output
    torch.testing.assert_close(encoder.model.norm(tokens), encoder.tokens(x))
    torch.testing.assert_close(encoder.mlp_outputs(x, 1), found[1:])
    assert not any(module._forward_hooks for module in encoder.modules())


def test_blocks_without_an_mlp_of_their_own_are_one_line(x: torch.Tensor) -> None:
    encoder = build_encoder("vit-mini", SPEC)
    del encoder.model.blocks[1].mlp
    with pytest.raises(UserError, match="have no MLP"):
        encoder.mlp_outputs(x, 1)


@pytest.mark.parametrize(
    ("size", "patch"), [(28, 4), (32, 4), (64, 8), (96, 12), (144, 18), (160, 16), (224, 16), (512, 16)]
)
def test_the_small_vit_cuts_at_least_seven_by_seven(size: int, patch: int) -> None:
    encoder = build_encoder("vit-mini", ImageSpec.of(size, 1))
    assert isinstance(encoder.model, VisionTransformer)
    assert (encoder.patch, encoder.grid, encoder.prefix) == (patch, size // patch, 0)
    torch.testing.assert_close(encoder.model.pos_embed.detach(), sines(encoder.grid, 64))


def test_positions_are_sines_of_row_and_column() -> None:
    table = sines(3, 8)[0]
    assert table.shape == (9, 8)
    torch.testing.assert_close(
        table[5, :4],
        torch.tensor([1.0, 0.01, 0, 0]).sin() + torch.tensor([0, 0, 1.0, 1]) * torch.tensor([0, 0, 1.0, 0.01]).cos(),
    )
    torch.testing.assert_close(
        table[5, 4:], torch.stack([torch.tensor([2.0, 0.02]).sin(), torch.tensor([2.0, 0.02]).cos()]).flatten()
    )


@pytest.mark.parametrize("size", [31, 62])
def test_a_size_that_no_patch_divides_is_one_line(size: int) -> None:
    with pytest.raises(UserError, match="give --size"):
        build_encoder("vit", ImageSpec.of(size, 3))


def test_a_size_that_the_patch_of_timm_does_not_divide_is_one_line() -> None:
    with pytest.raises(UserError, match="100 × 100 images: give another --size"):
        build_encoder("vit_tiny_patch16_224", ImageSpec.of(100, 3))


def test_a_convolutional_encoder_has_no_tokens(x: torch.Tensor) -> None:
    with pytest.raises(UserError, match="use a transformer, for example vit"):
        TimmModel("resnet18", SPEC).tokens(x)
