"""Frozen representations: encoders with their poolings and tokens, and principal components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from selfsup.errors import UserError
from selfsup.evaluation.drawn import Poolings
from selfsup.evaluation.features import extract
from selfsup.evaluation.rows import principal_components
from selfsup.source import Source

COMPONENTS = 64
TOKEN_NUMBERS = 2**30  # that fit into memory


class FrozenEncoder(NamedTuple):
    """An encoder that is only read, the name of its row, and the samples that it takes.

    An `untrained` one gets the statistics of the training samples for its BatchNorm, as a trained one has.
    """

    name: str
    encoder: nn.Module
    spec: Any
    untrained: bool = False


def project(train: NDArray[np.float32], test: NDArray[np.float32]) -> tuple[Poolings, Poolings]:
    """Project both parts on the first 64 principal components of the first, which needs no labels."""
    x = torch.from_numpy(train)
    mean = x.mean(0)
    centred = x - mean
    axes, _ = principal_components(centred, COMPONENTS)
    return {"own": (centred @ axes).numpy()}, {"own": ((torch.from_numpy(test) - mean) @ axes).numpy()}


class _Pooled(nn.Module):
    """An encoder's representation and, of its maps, the mean and the means of the four quadrants, side by side."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder, self.parts = encoder, {"own": 0}

    def forward(self, x: Tensor) -> Tensor:
        found = {"own": self.encoder(x)}
        if has(self.encoder, "maps"):
            maps = self.encoder.maps(x)
            found["mean"] = maps.mean((2, 3))
            if min(maps.shape[2:]) > 1:
                found["2×2"] = F.adaptive_avg_pool2d(maps, 2).flatten(1)
        self.parts = {name: part.shape[1] for name, part in found.items()}
        return torch.cat(list(found.values()), 1)


class _Tokens(nn.Module):
    """(B, C, H, W) -> (B, tokens · dim)."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder.tokens(x).flatten(1)


def encode(
    one: FrozenEncoder, parts: tuple[Source, Source], device: torch.device, poolings: bool, quiet: bool
) -> tuple[Poolings, Poolings]:
    """Return the features of both parts; with `poolings` also other poolings, where the encoder has maps."""
    what = f"embedding by {one.name}"
    if not poolings:
        train, test = ({"own": extract(one.encoder, part, one.spec, device, quiet, what)[1]} for part in parts)
        return train, test
    found = read_poolings(one.encoder, parts, one.spec, device, quiet, what)
    return found[0][1], found[1][1]


def read_poolings(
    encoder: nn.Module, parts: Sequence[Source], spec: Any, device: torch.device, quiet: bool, what: str = "embedding"
) -> list[tuple[NDArray[np.int64], Poolings]]:
    """Return for each part the numbers of the samples that can be read, and their features by pooling."""
    pooled, found = _Pooled(encoder), []
    for part in parts:
        numbers, x = extract(pooled, part, spec, device, quiet, what)
        found.append((numbers, _apart(x, pooled.parts)))
    first = found[0][1]
    kept = [name for name in first if name == "own" or not _same(first[name], first["own"])]
    return [(numbers, {name: features[name] for name in kept}) for numbers, features in found]


def encode_tokens(
    encoder: Any, parts: tuple[Source, Source], spec: Any, device: torch.device, protocol: str, quiet: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the tokens (n, tokens, dim) of both parts, for a protocol.

    Raises `UserError` for an encoder that has none, or too many to hold.
    """
    if not has(encoder, "tokens"):
        raise UserError(f"--protocol {protocol} needs an encoder with tokens; take a transformer, or linear")
    with torch.no_grad():
        shape = encoder.to(device).tokens(spec.example(2).to(device)).shape[1:]
    if shape.numel() * sum(map(len, parts)) > TOKEN_NUMBERS:
        raise UserError(
            f"--protocol {protocol} holds {shape[0]} tokens of {shape[1]} numbers per sample: give at most "
            f"{TOKEN_NUMBERS // shape.numel():,} samples"
        )
    train, test = (extract(_Tokens(encoder), part, spec, device, quiet)[1].reshape(-1, *shape) for part in parts)
    return train, test


def has(encoder: Any, what: str) -> bool:
    """Return whether an encoder has `maps` or `tokens`."""
    return hasattr(encoder, what) and bool(getattr(encoder, f"has_{what}", True))


def _apart(features: NDArray[np.float32], widths: Mapping[str, int]) -> dict[str, NDArray[np.float32]]:
    places = np.cumsum([0, *widths.values()])
    return {name: features[:, places[i] : places[i + 1]] for i, name in enumerate(widths)}


def _same(a: NDArray[np.float32], b: NDArray[np.float32]) -> bool:
    return a.shape == b.shape and bool(np.allclose(a[:16], b[:16], atol=1e-5))
