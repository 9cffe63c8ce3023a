"""Every encoder and decoder of transformers, built from its configuration without a download."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from selfsup.errors import UserError, need, unknown
from selfsup.spec import TextSpec

_WIDTHS = {"tiny": (2, 128, 2), "mini": (4, 256, 4), "small": (4, 512, 8)}  # layers, width, heads (Turc et al., 2019)
PRESETS = ("bert-tiny", "bert-mini", "bert-small", "gpt-tiny", "gpt-mini")
POOLINGS = {"mean": "the mean over the tokens", "cls": "the first token"}


class TransformersModel(nn.Module):
    """A transformers model without a head: (B, T) int64 -> (B, dim), the mean over all tokens except padding.

    `name`: a preset, or a model whose configuration is on this machine (a folder, or in the Hugging Face cache);
    NAME:cls uses the first token, not the mean. Documents longer than `spec.size` are read in windows of that size, as
    `TextViews` makes them, and averaged over all windows (cls: over their first tokens). `causal`: whether a token sees
    only those before it. [SEP] separates the segments, so a model needs nothing but ids.
    """

    def __init__(self, name: str, spec: TextSpec, pretrained: bool = False) -> None:
        super().__init__()
        self.spec = spec
        name, _, pooling = name.partition(":")
        if pooling and pooling not in POOLINGS:
            raise unknown("pooling of an encoder", pooling, POOLINGS)
        self.pooling = pooling or "mean"
        hf: Any = need("transformers", "text")
        self.model = _preset(hf, name, spec) if name in PRESETS else _named(hf, name, spec, pretrained)
        if pretrained and name in PRESETS:
            raise UserError(f"{name} has no pretrained weights")
        config = self.model.config
        places = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
        if places is not None and spec.size > places:
            raise UserError(f"{name} takes at most {places} tokens, not {spec.size}: give a smaller --size")
        self.causal = bool(getattr(config, "is_decoder", False)) or config.model_type in _CAUSAL
        self.segments = getattr(config, "type_vocab_size", 0) > 1
        self.dim = int(config.hidden_size)
        if self.causal and self.pooling == "cls":
            raise UserError(f"the first token of {name} sees no other tokens: leave out :cls")

    @property
    def pooling_words(self) -> str:
        """Describe the representation in words."""
        return POOLINGS[self.pooling]

    @property
    def embedding(self) -> Tensor:
        """Return the token embeddings (V, dim)."""
        return self.model.get_input_embeddings().weight

    def tokens(self, x: Tensor) -> Tensor:
        """(B, T) ids, T at most `spec.size` -> (B, T, dim)."""
        options: dict[str, Any] = {} if self.causal else {"attention_mask": (x != self.spec.pad).long()}
        if self.segments:
            ended = (x == self.spec.sep).long().cumsum(1) - (x == self.spec.sep).long()
            options["token_type_ids"] = ended.clamp(max=1)
        if self.causal:
            options["use_cache"] = False
        return self.model(input_ids=x, **options).last_hidden_state

    def forward(self, x: Tensor) -> Tensor:
        """(B, T) ids -> (B, dim)."""
        if x.shape[1] <= self.spec.size:
            return self.pool(x, self.tokens(x))
        windows = x.reshape(-1, self.spec.size)
        used = (windows[:, 0] != self.spec.pad).nonzero()[:, 0]
        total, count = self._sums(windows[used], self.tokens(windows[used]))
        owner = used // (x.shape[1] // self.spec.size)
        document = total.new_zeros(len(x), self.dim).index_add(0, owner, total)
        return document / count.new_zeros(len(x), 1).index_add(0, owner, count)

    def pool(self, x: Tensor, states: Tensor) -> Tensor:
        """(B, T) ids, T at most `spec.size`, and their `tokens` (B, T, dim) -> the representation (B, dim)."""
        total, count = self._sums(x, states)
        return total / count

    def _sums(self, x: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum (B, dim) of the pooled tokens, and their number (B, 1)."""
        if self.pooling == "cls":
            return states[:, 0], states.new_ones(len(x), 1)
        real = (x != self.spec.pad).unsqueeze(2).to(states.dtype)
        return (states * real).sum(1), real.sum(1)


_CAUSAL = ("gpt2", "gpt_neo", "gpt_neox", "llama", "mistral", "opt", "qwen2", "qwen3", "gemma", "phi")


def _preset(hf: Any, name: str, spec: TextSpec) -> Any:
    family, _, width = name.partition("-")
    layers, dim, heads = _WIDTHS[width]
    size, std = max(spec.size, 512), dim**-0.5  # std of the initial weights: the default, 0.02, suits a width of 768
    if family == "gpt":
        return hf.GPT2Model(
            hf.GPT2Config(
                vocab_size=spec.vocabulary, n_positions=size, n_embd=dim, n_layer=layers, n_head=heads,
                bos_token_id=spec.cls, eos_token_id=spec.sep, pad_token_id=spec.pad, initializer_range=std,
            )
        )  # fmt: skip
    config = hf.BertConfig(
        vocab_size=spec.vocabulary, hidden_size=dim, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=4 * dim, max_position_embeddings=size, pad_token_id=spec.pad, initializer_range=std,
    )  # fmt: skip
    return hf.BertModel(config, add_pooling_layer=False)


def _named(hf: Any, name: str, spec: TextSpec, pretrained: bool) -> Any:
    try:
        if pretrained:
            model = hf.AutoModel.from_pretrained(name, local_files_only=True, use_safetensors=True)
            if model.config.vocab_size != spec.vocabulary:
                raise UserError(
                    f"{name} has {model.config.vocab_size:,} tokens, the tokenizer {spec.vocabulary:,}: give the "
                    "model's own as --tokenizer tokenizer.json"
                )
            return model
        config = hf.AutoConfig.from_pretrained(name, local_files_only=True)
        config.vocab_size, config.pad_token_id = spec.vocabulary, spec.pad
        return hf.AutoModel.from_config(config)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise unknown(
            "encoder of texts (or transformers model on this machine)", name, ("bag-of-words", *PRESETS)
        ) from error
