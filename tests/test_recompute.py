"""Activation checkpointing: the same weights from less memory."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import selfsup
from selfsup.encoders import build_encoder
from selfsup.errors import UserError
from selfsup.spec import ImageSpec
from selfsup.train.recompute import recompute_blocks

RNG = np.random.default_rng(0)


def saved(encoder: nn.Module, x: torch.Tensor) -> int:
    """Return the bytes that a forward pass keeps for the gradient."""
    kept = dict[int, int]()

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        encoder(x).sum().backward()
    return sum(kept.values())


@pytest.mark.parametrize(("name", "blocks"), [("vit", 6), ("resnet18", 8)])
def test_gradients_and_statistics_are_the_same_and_less_is_kept(name: str, blocks: int) -> None:
    torch.manual_seed(0)
    plain = build_encoder(name, ImageSpec.of(16, 3)).train()
    for dropout in (part for part in plain.modules() if isinstance(part, nn.Dropout)):
        dropout.p = 0.1
    frugal, x = copy.deepcopy(plain), torch.randn(8, 3, 16, 16)
    assert recompute_blocks(frugal) == blocks
    kept = []
    for encoder in (plain, frugal):
        torch.manual_seed(1)
        kept.append(saved(encoder, x))
    assert kept[1] < kept[0] / 2
    for (key, one), other in zip(plain.named_parameters(), frugal.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad), key
    for (key, one), other in zip(plain.named_buffers(), frugal.buffers(), strict=True):
        assert torch.equal(one, other), key
    again = copy.deepcopy(frugal).eval()
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.zero_()
        assert not torch.equal(again(x[:2]), frugal.eval()(x[:2])), "a copy runs its own blocks"


@pytest.mark.parametrize("task", ["mae", "dino"])  # one through `tokens`, one with an EMA encoder
def test_three_steps_end_with_the_same_weights(task: str, tmp_path) -> None:
    x = RNG.integers(0, 255, (32, 16, 16, 3), dtype=np.uint8)
    options = {"task": task, "encoder": "vit-mini", "steps": 3, "batch_size": 8, "quiet": True}
    runs = [selfsup.pretrain(x, **options, grad_checkpointing=more, out=tmp_path / str(more)) for more in (False, True)]
    assert runs[0].weights_digest() == runs[1].weights_digest()
    assert selfsup.pretrain(x, **options, out=tmp_path / "True").done, "it is no part of the recipe"


def test_an_encoder_without_blocks_is_refused(tmp_path) -> None:
    x = RNG.integers(0, 255, (32, 16, 16, 3), dtype=np.uint8)
    with pytest.raises(UserError, match="--grad-checkpointing: mlp has no blocks"):
        selfsup.pretrain(
            x, encoder="mlp", steps=1, batch_size=8, grad_checkpointing=True, out=tmp_path / "r", quiet=True
        )
