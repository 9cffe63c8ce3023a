"""Transformers over samples: transformers' wav2vec 2.0, HuBERT and data2vec-audio, by their configuration."""

from __future__ import annotations

import copy
import math
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from selfsup.errors import UserError, need, unknown
from selfsup.spec import WaveSpec

PRESETS = ("wav2vec2-small",)
FAMILIES = ("wav2vec2", "hubert", "data2vec-audio")
LAYERS, WIDTH, HEADS = 4, 192, 4
TAPS = 32  # of the position embedding, 0.64 s: with the paper's 128, every step of a window of 2 s sees both ends
CHANNELS = (64, 64, 128, 128, 192, 192, 192)  # of the convolutions: 512 each in the paper


class WaveTransformer(nn.Module):
    """Seven strided convolutions, a latent every 320 samples (20 ms at 16 kHz), and a transformer over them.

    `name`: `wav2vec2-small`, the architecture of Baevski et al., 2020, with 4 blocks of width 192 (12 of 768),
    normalized before attention and MLP as in its large model, without dropout; or a wav2vec2, hubert or data2vec-audio
    model whose configuration is on this machine (a folder, or OWNER/NAME in the Hugging Face cache). The representation
    is the mean of the transformer's output over time.
    """

    def __init__(self, name: str, spec: WaveSpec, pretrained: bool = False) -> None:
        super().__init__()
        if pretrained and name in PRESETS:
            raise UserError(f"{name} has no pretrained weights")
        hf: Any = need("transformers", "text")
        self.spec, self.model = spec, _preset(hf) if name in PRESETS else _named(hf, name, pretrained)
        self.dim, self.latent_dim = int(self.model.config.hidden_size), int(self.model.config.conv_dim[-1])
        self.reach, self.stride = 1, math.prod(self.model.config.conv_stride)  # samples of a latent, between two
        for kernel, stride in zip(
            self.model.config.conv_kernel[::-1], self.model.config.conv_stride[::-1], strict=True
        ):
            self.reach = (self.reach - 1) * stride + kernel
        if spec.length < self.reach:
            raise UserError(f"{name} needs windows of {self.reach} samples, not {spec.length}: give more --seconds")

    @property
    def transformer(self) -> Any:
        """Return the part behind `tokens`: the position embedding and the blocks."""
        return self.model.encoder

    @property
    def depth(self) -> int:
        """Return the number of blocks."""
        return len(self.transformer.layers)

    def latents(self, x: Tensor) -> Tensor:
        """(B, N) -> (B, T, latent_dim), before the transformer: each sees 400 samples, and the window's loudness."""
        x = x[:, None]
        for layer in self.model.feature_extractor.conv_layers:
            x = layer(x)
        return x.transpose(1, 2)

    def tokens(self, latents: Tensor) -> Tensor:
        """(B, T, latent_dim) -> (B, T, dim): the latents as the transformer takes them."""
        found = self.model.feature_projection(latents)
        return found[0] if isinstance(found, tuple) else found

    def contexts(self, latents: Tensor, mask: Tensor | None = None, token: Tensor | None = None) -> Tensor:
        """Return what the transformer makes of latents (B, T, latent_dim): (B, T, dim).

        Where `mask` (B, T) is true, it gets `token` (dim,) in place of the latent.
        """
        tokens = self.tokens(latents)
        if mask is not None and token is not None:
            tokens = torch.where(mask[..., None], token.to(tokens.dtype), tokens)
        return self.transformer(tokens).last_hidden_state

    def mlp_outputs(self, tokens: Tensor, last: int, transformer: Any = None) -> list[Tensor]:
        """Return what the MLPs of the `last` blocks add to the tokens (B, T, dim): `last` times (B, T, dim).

        `transformer`: a copy of its own, such as an EMA.
        """
        found: list[Tensor] = []
        hooks = [
            block.feed_forward.register_forward_hook(lambda _, inputs, output: found.append(output))
            for block in (transformer or self.transformer).layers[-last:]
        ]
        try:
            (transformer or self.transformer)(tokens)
        finally:
            for hook in hooks:
                hook.remove()
        return found

    def first_blocks(self, count: int) -> Self:
        """Return a copy that ends after `count` blocks, and requires no gradient."""
        found = copy.deepcopy(self).requires_grad_(False)
        found.model.encoder.layers = found.model.encoder.layers[:count]
        return found

    def frames(self, x: Tensor) -> Tensor:
        """(B, N) -> (B, T, dim): the context at each latent, which knows the whole window."""
        return self.contexts(self.latents(x))

    def frame_times(self) -> NDArray[np.float64]:
        """Return when each of `frames` is (T,), in seconds from the window's beginning: the middle of what it sees."""
        return (
            np.arange((self.spec.length - self.reach) // self.stride + 1) * self.stride + self.reach / 2
        ) / self.spec.rate

    def forward(self, x: Tensor) -> Tensor:
        """(B, N) -> (B, dim)."""
        return self.frames(x).mean(1)


def _preset(hf: Any) -> Any:
    # the vector for masked steps is the task's: an encoder that masks nothing would have a weight without a gradient
    return hf.Wav2Vec2Model(
        hf.Wav2Vec2Config(
            hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS, intermediate_size=4 * WIDTH,
            conv_dim=CHANNELS, num_conv_pos_embeddings=TAPS, do_stable_layer_norm=True,
            initializer_range=WIDTH**-0.5, **_UNMASKED, **_CALM,
        )
    )  # fmt: skip


_UNMASKED = {"mask_time_prob": 0.0, "mask_feature_prob": 0.0}
_CALM = dict.fromkeys(
    ("hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout", "layerdrop"), 0.0
)


def _named(hf: Any, name: str, pretrained: bool) -> Any:
    try:
        config = hf.AutoConfig.from_pretrained(name, local_files_only=True, **_UNMASKED)
        if config.model_type not in FAMILIES:
            raise UserError(f"{name} is a {config.model_type} model: give one of {', '.join(FAMILIES)}")
        if not pretrained:
            return hf.AutoModel.from_config(config)
        return hf.AutoModel.from_pretrained(name, config=config, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise unknown("encoder of samples (or transformers model on this machine)", name, PRESETS) from error
